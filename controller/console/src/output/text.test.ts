import { describe, expect, it } from "vitest";
import { decode, lastOfLine, plain, visible } from "./text";

describe("plain", () => {
  it("removes what would steer a terminal", () => {
    expect(plain("\x1b[31mred\x1b[0m \x1b]0;title\x07x\x1bPq\x1b\\y\x1b(B")).toBe("red xy");
    expect(plain("a\x00b\x08c\x9bd")).toBe("abcd");
  });
  it("keeps tabs and lines", () => expect(plain("a\tb\r\nc\n")).toBe("a\tb\nc\n"));
  it("survives a sequence that never ends", () => expect(plain("x\x1b[12")).not.toContain("\x1b"));
  it("leaves markup as the text it is", () => expect(plain("<script>")).toBe("<script>"));
});

describe("visible", () => {
  it("shows what would turn text around", () =>
    expect(visible("user \u202egnp.exe\u200b")).toBe("user ⟨U+202E⟩gnp.exe⟨U+200B⟩"));
  it("leaves words of any script", () => expect(visible("naïve שלום 日本")).toBe("naïve שלום 日本"));
});

describe("lastOfLine", () => {
  it("shows the end of a progress bar", () => expect(lastOfLine("10%\r50%\r100%")).toBe("100%"));
  it("forgives a trailing return", () => expect(lastOfLine("done\r")).toBe("done"));
});

describe("decode", () => {
  it("reads UTF-8", () => expect(decode("w6Q=")).toBe("ä"));
  it("marks what is no text", () => expect(decode("/w==")).toBe("\uFFFD"));
});
