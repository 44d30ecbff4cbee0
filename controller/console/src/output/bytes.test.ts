import { describe, expect, it } from "vitest";
import { decoded, textIn, textOfPiece } from "./bytes";

const bytes = (text: string) => new TextEncoder().encode(text);

describe("bytes", () => {
  it("are text where they are some", () => {
    expect(textIn(decoded("aMOkPGI+") ?? new Uint8Array())).toBe("hä<b>");
    expect(textIn(new Uint8Array([0x61, 0]))).toBeUndefined();
    expect(textIn(new Uint8Array([0xff, 0xfe]))).toBeUndefined();
    expect(decoded("no base64!")).toBeUndefined();
  });

  it("of a character that is cut in two stand where it begins, wherever the cut is", () => {
    const whole = "aä€😀z";
    const all = bytes(whole);
    for (let cut = 0; cut <= all.length; cut += 1) {
      const [first, second] = [all.subarray(0, cut), all.subarray(cut)];
      const told = (textOfPiece(first, second) ?? "?") + (textOfPiece(second, undefined) ?? "?");
      expect(told, `cut at ${cut}`).toBe(whole);
    }
  });

  it("of a character whose rest is not there are left out", () => {
    expect(textOfPiece(bytes("a€").subarray(0, 3), undefined)).toBe("a");
  });
});
