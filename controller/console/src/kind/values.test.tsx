import { renderToStaticMarkup } from "react-dom/server";
import { describe, expect, it } from "vitest";
import { fieldsOf } from "./schema";
import { namesOf, plain, Values } from "./values";

const digest = "ab".repeat(32);

function read(values: Record<string, unknown>): string {
  return renderToStaticMarkup(<Values values={values} />)
    .replace(/<[^>]*>/g, " ")
    .replace(/\s+/g, " ");
}

describe("Values", () => {
  it("shows what is nested, and stands in for what is not shown", () => {
    const text = read({
      name: "x",
      digest,
      after: { sub: "running" },
      token: { digest, bytes: 3 },
      list: ["a", "b"],
    });
    expect(text).toContain("name x");
    expect(text).toContain("digest abababababab ");
    expect(text).toContain("after sub running");
    expect(text).toContain("token not shown (digest abababababab, bytes 3)");
    expect(text).toContain("list a b");
    expect(text).not.toContain(digest);
  });

  it("shows times as times, however deep they are", () => {
    const since = { type: "integer", format: "unix-ms" };
    const fields = fieldsOf({ properties: { since, after: { type: "object", properties: { since } } } });
    const values = { since: 1767323045000, after: { since: 1767323045000 } };
    const page = renderToStaticMarkup(<Values values={values} fields={fields} />);
    expect(page.match(/dateTime="2026-01-02T03:04:05.000Z"/gi)).toHaveLength(2);
    expect(page).not.toContain("1767323045000");
    expect(read({ since: 1767323045000 })).toContain("1767323045000");
    const odd = renderToStaticMarkup(<Values values={{ since: 1e300 }} fields={fields} />);
    expect(odd).toContain("1e+300");
  });

  it("shows markup as the text it is", () => {
    expect(renderToStaticMarkup(<Values values={{ "<b>": "<script>" }} />)).not.toContain("<script>");
  });
});

describe("plain", () => {
  it.each([
    [null, ""],
    [true, "true"],
    [[1, "a"], "1, a"],
    [{ a: 1 }, '{"a":1}'],
  ])("%j", (value, text) => expect(plain(value)).toBe(text));
});

describe("namesOf", () => {
  it("keeps the order of the schema", () => {
    const fields = fieldsOf({ required: ["c"], properties: { a: {}, c: {}, d: {} } });
    expect(namesOf([{ b: 1, a: 1 }, { c: 1 }], fields)).toEqual(["c", "a", "b"]);
  });
});
