import { describe, expect, it } from "vitest";
import type { Schemas } from "./client";
import { Reports } from "./events";

const run = (id: string, report?: Record<string, unknown>): Schemas["Run"] =>
  ({ id, state: "succeeded", ...(report ? { report } : {}) }) as unknown as Schemas["Run"];

describe("Reports", () => {
  const large = 64 * 1024;

  it("keeps as many as there is room for, and says which it let go", () => {
    const reports = new Reports();
    const kept = Array.from({ length: 1000 }, (_, n) => reports.take(run(`${n}`, { n }), large));
    const whole = kept.filter(({ report }) => report);
    expect(whole.length).toBe(256);
    expect(reports.letGo.size).toBe(1000 - 256);
    expect(kept.every(({ id, report }) => (report === undefined) === reports.letGo.has(id))).toBe(true);
    // Runs without one take no room, and are not said to have one.
    expect(reports.take(run("none"), large)).toEqual(run("none"));
    expect(reports.letGo.has("none")).toBe(false);
  });

  it("counts a run that is told once more only once", () => {
    const reports = new Reports();
    for (let n = 0; n < 1000; n += 1) {
      expect(reports.take(run("a", { n }), large).report).toEqual({ n });
    }
  });
});
