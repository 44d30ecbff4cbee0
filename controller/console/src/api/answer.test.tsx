import { act } from "react";
import { createRoot, type Root } from "react-dom/client";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Answer, type Asking, KEEP_ENTRIES, useAnswer } from "./answer";
import type { Schemas } from "./client";

/** The network of these tests. The client takes what it fetches with once, when it is made: so before it is imported. */
const network = vi.hoisted(() => {
  const network = {
    answer: async (_: Request): Promise<Response> => new Response(),
    signal: undefined as AbortSignal | null | undefined,
  };
  const Real = globalThis.Request;
  globalThis.fetch = (sent) => network.answer(sent as Request);
  globalThis.Request = class extends Real {
    constructor(input: RequestInfo | URL, { signal, ...init }: RequestInit = {}) {
      super(typeof input === "string" ? new URL(input, "http://console.example").href : input, init);
      network.signal = signal;
    }
  };
  return network;
});

const item = (host: string, key: string, value: unknown) => ({
  name: "item",
  data: JSON.stringify({ host, key, item: value }),
});

describe("Answer", () => {
  it("keeps the last of each key in a table, and forgets what is gone", () => {
    const answer = new Answer("table");
    answer.take(item("a", "x", { n: 1 }));
    answer.take(item("b", "x", { n: 2 }));
    answer.take(item("a", "y", { n: 3 }));
    answer.take(item("a", "x", { n: 4 }));
    answer.take(item("a", "y", null));
    expect(answer.items().map(({ host, key, item }) => [host, key, item.n])).toEqual([
      ["a", "x", 4],
      ["b", "x", 2],
    ]);
  });

  it("keeps the newest of a sequence, and counts what it let go", () => {
    const answer = new Answer("entries");
    for (let n = 0; n < KEEP_ENTRIES * 2; n += 1) answer.take(item("a", `c${n}`, { n }));
    const kept = answer.items();
    expect(kept.length).toBeLessThanOrEqual(KEEP_ENTRIES);
    expect(kept.at(-1)?.item.n).toBe(KEEP_ENTRIES * 2 - 1);
    expect(kept.length + answer.dropped).toBe(KEEP_ENTRIES * 2);
  });

  it("stays bounded in size, too", () => {
    const answer = new Answer("entries");
    const long = "x".repeat(64 * 1024);
    for (let n = 0; n < 1000; n += 1) answer.take(item("a", `c${n}`, { long }));
    expect(answer.items().length * long.length).toBeLessThanOrEqual(16 * 1024 * 1024);
    expect(answer.dropped).toBeGreaterThan(0);
  });

  it("shows the entries that are told once more only once", () => {
    const before = new Answer("entries");
    for (const key of ["1", "2"]) before.take(item("a", key, {}));
    const answer = new Answer("entries", before);
    for (const key of ["1", "2", "3"]) answer.take(item("a", key, {}));
    expect(answer.items().map(({ key }) => key)).toEqual(["1", "2", "3"]);
  });

  it("does not show what it let go once more behind what came later", () => {
    const before = new Answer("entries");
    for (let n = 0; n < KEEP_ENTRIES * 2; n += 1) before.take(item("a", `c${n}`, { n }));
    const answer = new Answer("entries", before);
    for (let n = 100; n < KEEP_ENTRIES * 2 + 100; n += 1) answer.take(item("a", `c${n}`, { n }));
    const numbers = answer.items().map(({ item }) => item.n as number);
    expect(numbers.at(-1)).toBe(KEEP_ENTRIES * 2 + 99);
    expect(numbers.every((n, at) => at === 0 || n === (numbers[at - 1] ?? 0) + 1)).toBe(true);
  });

  it("takes nothing that is no item", () => {
    const answer = new Answer("table");
    for (const data of ["1", "null", "[]", '{"host":1,"key":"x"}', '{"host":"a"}']) {
      answer.take({ name: "item", data });
    }
    expect(answer.items()).toEqual([]);
  });
});

describe("useAnswer", () => {
  let root: Root;
  let seen: Asking;
  const bodies: unknown[] = [];
  const request: Schemas["QueryCreate"] = { kind: "k", on: "a", follow: true };

  beforeEach(() => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    (globalThis as { IS_REACT_ACT_ENVIRONMENT?: boolean }).IS_REACT_ACT_ENVIRONMENT = true;
    bodies.length = 0;
    root = createRoot(document.createElement("div"));
  });
  afterEach(() => {
    act(() => root.unmount());
    vi.useRealTimers();
  });

  function Probe({ ask }: { ask: Schemas["QueryCreate"] | undefined }) {
    seen = useAnswer(ask, "table");
    return null;
  }

  /** Answers each request with the next of these. */
  function answerWith(...answers: (string | { status: number; error: string })[]) {
    network.answer = async (sent) => {
      bodies.push(await sent.json());
      const next = answers.shift() ?? "";
      if (typeof next !== "string") {
        return new Response(JSON.stringify({ code: "X", error: next.error }), {
          status: next.status,
          headers: { "content-type": "application/json" },
        });
      }
      return new Response(next, { headers: { "content-type": "text/event-stream" } });
    };
  }

  const until = (holds: () => boolean) =>
    vi.waitFor(async () => {
      await act(async () => {
        await new Promise((resolve) => requestAnimationFrame(resolve));
      });
      expect(holds()).toBe(true);
    });
  const told = (key: string) => `event: item\ndata: ${JSON.stringify({ host: "a", key, item: {} })}\n\n`;
  const END = 'event: end\ndata: {"hosts":1,"answered":1}\n\n';

  it("asks what it is given, and tells what comes", async () => {
    answerWith(told("x") + END);
    act(() => root.render(<Probe ask={request} />));
    await until(() => seen.phase === "ended");
    expect(bodies).toEqual([request]);
    expect(seen.answer.items().map(({ key }) => key)).toEqual(["x"]);
  });

  it("keeps what it knows when the connection breaks, and asks again", async () => {
    answerWith(told("x"), told("y") + END);
    act(() => root.render(<Probe ask={request} />));
    await until(() => seen.phase === "lost");
    expect(seen.answer.items().map(({ key }) => key)).toEqual(["x"]);
    await act(async () => void (await vi.advanceTimersByTimeAsync(1_000)));
    await until(() => seen.phase === "ended");
    expect(seen.answer.items().map(({ key }) => key)).toEqual(["y"]);
    expect(seen.error).toBeUndefined();
  });

  it("shows a table that is asked for once more until there is a newer one", async () => {
    answerWith(told("x") + END);
    act(() => root.render(<Probe ask={request} />));
    await until(() => seen.phase === "ended");
    let answer = (_: Response) => {};
    network.answer = () =>
      new Promise((resolve) => {
        answer = resolve;
      });
    act(() => seen.again());
    await until(() => seen.phase === "asking");
    expect(seen.answer.items().map(({ key }) => key)).toEqual(["x"]);
    answer(new Response(told("y") + END, { headers: { "content-type": "text/event-stream" } }));
    await until(() => seen.phase === "ended");
    expect(seen.answer.items().map(({ key }) => key)).toEqual(["y"]);
  });

  it("keeps the rows of a table until a host has told all of its own once more", async () => {
    answerWith(told("x") + told("y") + END);
    act(() => root.render(<Probe ask={request} />));
    await until(() => seen.phase === "ended");
    let send = (_: string) => {};
    network.answer = async () => {
      const body = new ReadableStream<Uint8Array>({
        start: (stream) => {
          send = (text) => stream.enqueue(new TextEncoder().encode(text));
        },
      });
      return new Response(body, { headers: { "content-type": "text/event-stream" } });
    };
    act(() => seen.again());
    await until(() => seen.phase === "live");
    await act(async () => send(told("x")));
    expect(seen.answer.items().map(({ key }) => key)).toEqual(["x", "y"]);
    await act(async () => send('event: host\ndata: {"host":"a","state":"ended"}\n\n'));
    await until(() => seen.answer.items().length === 1);
  });

  it("forgets what was asked before something else was", async () => {
    answerWith(told("x") + END, told("y"));
    act(() => root.render(<Probe ask={request} />));
    await until(() => seen.phase === "ended");
    network.answer = () => new Promise(() => {});
    act(() => root.render(<Probe ask={{ ...request, on: "b" }} />));
    await until(() => seen.phase === "asking");
    expect(seen.answer.items()).toEqual([]);
  });

  it("does not repeat what the controller refuses", async () => {
    answerWith({ status: 403, error: "you may not read this" });
    act(() => root.render(<Probe ask={request} />));
    await until(() => seen.error !== undefined);
    await act(async () => void (await vi.advanceTimersByTimeAsync(60_000)));
    expect(seen.error?.message).toBe("you may not read this");
    expect(bodies).toHaveLength(1);
  });

  it("asks again what the controller only cannot answer now, and says why it waits", async () => {
    answerWith(
      told("x"),
      { status: 429, error: "64 queries are open already" },
      { status: 503, error: "the controller is stopping" },
      told("y") + END,
    );
    act(() => root.render(<Probe ask={request} />));
    await until(() => seen.phase === "lost");
    const expected = [
      [1_000, "64 queries are open already"],
      [2_000, "the controller is stopping"],
    ] as const;
    for (const [after, why] of expected) {
      await act(async () => void (await vi.advanceTimersByTimeAsync(after)));
      await until(() => seen.error?.message === why);
      expect(seen.phase).toBe("lost");
      expect(seen.answer.items().map(({ key }) => key)).toEqual(["x"]);
    }
    await act(async () => void (await vi.advanceTimersByTimeAsync(5_000)));
    await until(() => seen.phase === "ended");
    expect(seen.error).toBeUndefined();
    expect(seen.answer.items().map(({ key }) => key)).toEqual(["y"]);
  });

  it("asks nothing without a request, and lets go of one that is not shown any more", async () => {
    const asked = () => network.signal;
    network.signal = undefined;
    network.answer = () => new Promise(() => {});
    act(() => root.render(<Probe ask={undefined} />));
    expect(seen.phase).toBe("idle");
    act(() => root.render(<Probe ask={request} />));
    await until(() => asked() != null);
    act(() => root.render(<Probe ask={undefined} />));
    expect(asked()?.aborted).toBe(true);
  });
});
