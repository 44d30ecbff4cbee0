// A schema with every shape, for tests.

export const everything = {
  type: "object",
  required: ["what", "mode"],
  properties: {
    count: { type: ["integer", "null"], description: "How\noften.", default: 3 },
    deep: { type: "object", properties: { a: { type: "string" } } },
    kind: {
      allOf: [
        { type: "string", enum: ["a", "b"], description: "A kind." },
        { type: "object", description: "Which." },
      ],
    },
    labels: { type: "object", additionalProperties: { type: "string" } },
    maybe: { oneOf: [{ type: "null" }, { $ref: "#/components/schemas/Mode" }] },
    mode: { $ref: "#/components/schemas/Mode", description: "How." },
    names: { type: "array", items: { type: "string" } },
    on: { type: "boolean" },
    share: { type: "number" },
    tree: { $ref: "#/components/schemas/Tree" },
    what: { type: "string", example: "nginx" },
  },
  components: {
    schemas: {
      Mode: { type: "string", enum: ["fast", "slow"], description: "A mode." },
      Tree: { $ref: "#/components/schemas/Tree" },
    },
  },
};
