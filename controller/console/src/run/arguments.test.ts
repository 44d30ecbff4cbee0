import { describe, expect, it } from "vitest";
import { split } from "./arguments";

describe("split", () => {
  it.each([
    ["", []],
    ["  --dry-run   -v ", ["--dry-run", "-v"]],
    ["--name='a b' \"c d\"", ["--name=a b", "c d"]],
    ["a\\ b", ["a b"]],
    ["''", [""]],
    ['"a\\"b" "c\\n"', ['a"b', "c\\n"]],
    ["$HOME `id` ; rm", ["$HOME", "`id`", ";", "rm"]],
  ])("%j", (line, words) => expect(split(line)).toEqual({ words }));

  it.each(["'open", '"open', "end\\"])("refuses %j", (line) => expect(split(line)).toHaveProperty("error"));
});
