import { describe, expect, it } from "vitest";
import { build, draftsOf, named } from "./params";
import { everything } from "./sample";
import { fieldsOf } from "./schema";

const fields = fieldsOf(everything);

describe("build", () => {
  it("gives each value the type that the schema declares", () => {
    const drafts = {
      what: " a b",
      mode: "slow",
      count: "-7",
      share: "0.5",
      on: false,
      names: "a\n\nb c\n",
      labels: [
        ["x", "1"],
        ["", "ignored"],
      ] as [string, string][],
      deep: '{"a": [1]}',
      maybe: "",
    };
    expect(build(fields, drafts)).toEqual({
      params: {
        what: " a b",
        mode: "slow",
        count: -7,
        share: 0.5,
        on: false,
        names: ["a", "b c"],
        labels: { x: "1" },
        deep: { a: [1] },
      },
      faults: {},
      isIncomplete: false,
    });
  });

  it("reads times as people write them", () => {
    const at = fieldsOf({ properties: { at: { type: "integer", format: "unix-ms" } } });
    expect(build(at, { at: "2026-01-02T03:04:05Z" }).params).toEqual({ at: 1767323045000 });
    expect(build(at, { at: "5" }).params).toEqual({ at: 5 });
    expect(Object.keys(build(at, { at: "soon" }).faults)).toEqual(["at"]);
  });

  it("leaves out what is empty, and knows what is missing", () => {
    expect(build(fields, { what: "  ", names: "\n", labels: [] })).toEqual({
      params: {},
      faults: {},
      isIncomplete: true,
    });
  });

  it("says what is wrong beside its field", () => {
    const built = build(fields, { what: "x", mode: "fast", count: "1.5", share: "x", deep: "{" });
    expect(Object.keys(built.faults)).toEqual(["count", "deep", "share"]);
    expect(built.faults.deep).toContain("This is no JSON");
  });
});

describe("draftsOf", () => {
  it("is the way back", () => {
    const params = {
      what: "a",
      mode: "slow",
      count: -7,
      share: 0.5,
      on: true,
      names: ["a", "b c"],
      labels: { x: "1" },
      deep: { a: [1] },
    };
    expect(build(fields, draftsOf(fields, params)).params).toEqual(params);
  });

  it("leaves what there is no field for", () => expect(draftsOf(fields, { odd: 1, what: null })).toEqual({}));
});

describe("named", () => {
  it.each([
    ["steps[0].params.what", "what"],
    ["steps.0.params.labels.x", "labels"],
    ["what", "what"],
    ["on", undefined],
    ["steps", undefined],
    [undefined, undefined],
  ])("%s is %s", (field, name) => expect(named(field, fields)).toBe(name));
});
