import { describe, expect, it } from "vitest";
import { everything } from "./sample";
import { fieldsOf } from "./schema";

describe("fieldsOf", () => {
  it("tells shapes, and what has to be there first", () => {
    const fields = fieldsOf(everything);
    expect(fields.map((field) => [field.name, field.shape.is])).toEqual([
      ["what", "text"],
      ["mode", "choice"],
      ["count", "integer"],
      ["deep", "json"],
      ["kind", "choice"],
      ["labels", "map"],
      ["maybe", "choice"],
      ["names", "list"],
      ["on", "switch"],
      ["share", "number"],
      ["tree", "json"],
    ]);
    expect(fields[1]).toEqual({
      name: "mode",
      shape: { is: "choice", choices: ["fast", "slow"] },
      required: true,
      description: "How.",
    });
    expect(fields[2]).toMatchObject({ description: "How often.", default: 3, required: false });
    expect(fields[4]).toMatchObject({ description: "Which.", shape: { choices: ["a", "b"] } });
    expect(fields[6]).toMatchObject({ shape: { choices: ["fast", "slow"] } });
  });

  it.each([
    [null],
    [{ $ref: "#" }],
    [{ $ref: "#/__proto__" }],
    [{ type: ["string", "integer"] }],
    [{ type: "array", items: { type: "array", items: { type: "string" } } }],
    [{ enum: [1, 2] }],
    [{ oneOf: [{ type: "string" }, { type: "object" }] }],
  ])("takes %j as JSON", (odd) => {
    expect(fieldsOf({ properties: { a: odd } })[0]?.shape).toEqual({ is: "json" });
  });

  it("looks into objects, and knows times", () => {
    const again = { $ref: "#/components/schemas/Knot" };
    const knot = { type: "object", properties: { at: { type: "integer", format: "unix-ms" }, again } };
    const [field] = fieldsOf({ properties: { again }, components: { schemas: { Knot: knot } } });
    expect(field?.fields?.[0]?.shape).toEqual({ is: "time" });
    expect(field?.fields?.[1]?.fields?.[1]?.fields).toBeUndefined();
  });

  it("knows what each word means, and which texts may have several lines", () => {
    const word = (text: string, description: string) => ({ type: "string", enum: [text], description });
    const verb = {
      oneOf: [word("start", "Start it."), word("stop", "Stop it.")],
      description: "What to do.",
    };
    const [field, content, name] = fieldsOf({
      properties: { verb, content: { type: "string" }, name: { type: "string", maxLength: 255 } },
    });
    expect(field).toMatchObject({
      description: "What to do.",
      shape: { is: "choice", choices: ["start", "stop"], meanings: { start: "Start it.", stop: "Stop it." } },
    });
    expect([content?.isLong, name?.isLong]).toEqual([true, undefined]);
  });

  it("finds nothing in what is no schema", () => expect(fieldsOf({})).toEqual([]));
});
