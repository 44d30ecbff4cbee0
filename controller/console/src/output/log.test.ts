import { describe, expect, it } from "vitest";
import { KEEP, OutputLog } from "./log";

const at = "2026-01-02T03:04:05.678Z";
const out = (text: string) => ({ stream: "stdout" as const, at, text });

describe("OutputLog", () => {
  it("joins pieces of a line and keeps streams apart", () => {
    const log = new OutputLog();
    log.append([out("hel"), out("lo\nwor"), { stream: "stderr", at, text: "oops\n" }, out("ld\n")]);
    expect(log.lines.map((line) => [line.stream, line.text])).toEqual([
      ["stdout", "hello"],
      ["stdout", "wor"],
      ["stderr", "oops"],
      ["stdout", "ld"],
    ]);
    expect(log.last()).toBe("ld");
  });

  it("says how much was dropped", () => {
    const log = new OutputLog();
    log.append([out("a\n"), { stream: null, at, dropped: 1234 }]);
    expect(log.lines.at(-1)).toEqual({
      stream: "marker",
      text: "1,234 bytes dropped here by the output limit or a full disk",
    });
  });

  it("stays bounded, whatever comes", () => {
    const log = new OutputLog();
    for (let round = 0; round < 40; round += 1) log.append([out(`${"x".repeat(100)}\n`.repeat(400))]);
    const kept = log.lines.reduce((sum, line) => sum + line.text.length + 1, 0);
    expect(kept).toBeLessThanOrEqual(KEEP);
    expect(log.truncated).toBe(true);
  });

  it("breaks an endless line", () => {
    const log = new OutputLog();
    for (let round = 0; round < 10; round += 1) log.append([out("y".repeat(4096))]);
    expect(log.lines.length).toBeGreaterThan(1);
  });
});
