import { describe, expect, it } from "vitest";
import { EventReader } from "./sse";

const stream =
  'event: item\ndata: {"a":1}\n\n: a heartbeat\n\nevent: host\r\ndata: b\r\ndata: c\r\n\r\ndata:d\n\nevent: x\n\n';

describe("EventReader", () => {
  it("reads the same events wherever the stream is cut", () => {
    const expected = [
      { name: "item", data: '{"a":1}' },
      { name: "host", data: "b\nc" },
      { name: "message", data: "d" },
    ];
    for (let at = 0; at <= stream.length; at += 1) {
      const reader = new EventReader();
      const events = [...reader.push(stream.slice(0, at)), ...reader.push(stream.slice(at))];
      expect(events, `cut at ${at}`).toEqual(expected);
    }
  });

  it("tells no event before it has ended", () => {
    expect(new EventReader().push("event: item\ndata: 1\n")).toEqual([]);
  });

  it("does not keep a line without an end", () => {
    const reader = new EventReader();
    const push = () => {
      for (let round = 0; round < 40; round += 1) reader.push("x".repeat(64 * 1024));
    };
    expect(push).toThrow("too long");
  });
});
