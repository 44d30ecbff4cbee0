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

  it("keeps what was last told of each step, and writes nothing for it", () => {
    const log = new OutputLog();
    const tell = (step: string, state: "began" | "done", words: string) => ({
      at,
      step: { step, state, words, percent: null },
    });
    log.append([tell("look", "began", "looking"), out("a\n"), tell("change", "began", "\u001b[2Jchanging")]);
    log.append([tell("look", "done", "found")]);
    expect(log.steps.map(({ step, state, words }) => [step, state, words])).toEqual([
      ["look", "done", "found"],
      ["change", "began", "changing"],
    ]);
    expect(log.lines.map((line) => line.text)).toEqual(["a"]);
    for (let number = 0; number < 1000; number += 1) log.append([tell(`step ${number}`, "began", "")]);
    expect(log.steps.length).toBeLessThanOrEqual(200);
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
