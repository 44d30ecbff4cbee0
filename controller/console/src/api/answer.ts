// What hosts answer to a query: kept as it comes, bounded, and live as long as it is looked at.

import { useEffect, useMemo, useRef, useState } from "react";
import { isObject, type Json } from "../kind/schema";
import { ApiError, api, type Schemas, take } from "./client";
import { EventReader, type ServerEvent } from "./sse";

export type Told = { host: string; key: string; item: Json };

/** How the answer as a whole stands. `lost` is one that broke off without an end. */
export type Phase = "idle" | "asking" | "live" | "ended" | "lost";

/** Entries of a sequence that are kept; older ones are let go. */
export const KEEP_ENTRIES = 5_000;
/** Keys of a sequence that are kept: as many as a host that is asked again tells once more at the most. */
const KEEP_KEYS = 10_000;
/** Characters of a sequence that are kept. */
const KEEP_SIZE = 16 * 1024 * 1024;
/** Rows of a table that are kept; a host tells 16,384 of one at the most. */
const KEEP_ROWS = 50_000;
/** Pauses before the same is asked again, in milliseconds. */
const PAUSES = [1_000, 2_000, 5_000, 10_000, 30_000];

/** What was told so far, of one query. */
export class Answer {
  readonly hosts = new Map<string, Schemas["QueryHost"]>();
  end: Schemas["QueryEnd"] | undefined;
  /** How many older entries were let go, or rows not taken. */
  dropped = 0;
  private rows = new Map<string, Told>();
  private entries: { told: Told; size: number }[] = [];
  private size = 0;
  /** The places of the last entries, the oldest first, also of those that were let go. */
  private told: string[] = [];
  private seen = new Set<string>();

  constructor(
    readonly shows: Schemas["Shows"],
    before?: Answer,
  ) {
    if (!before || shows !== "entries") return;
    // Asked again, a host tells its last entries once more: those that are here already are not shown twice.
    this.entries = [...before.entries];
    this.size = before.size;
    this.dropped = before.dropped;
    this.told = [...before.told];
    this.seen = new Set(this.told);
  }

  /** Everything that is shown, in the order in which it was first told. */
  items(): Told[] {
    return this.shows === "entries" ? this.entries.map(({ told }) => told) : [...this.rows.values()];
  }

  /** Takes one event; what is no such event is left. */
  take({ name, data }: ServerEvent): void {
    const value: unknown = JSON.parse(data);
    if (!isObject(value)) return;
    if (name === "end") this.end = value as Schemas["QueryEnd"];
    if (typeof value.host !== "string") return;
    if (name === "host") this.hosts.set(value.host, value as Schemas["QueryHost"]);
    if (name !== "item" || typeof value.key !== "string") return;
    const told = { host: value.host, key: value.key };
    if (!isObject(value.item)) this.rows.delete(place(told));
    else if (this.shows === "entries") this.append({ ...told, item: value.item }, data.length);
    else this.set({ ...told, item: value.item });
  }

  private set(told: Told): void {
    const at = place(told);
    if (this.rows.size < KEEP_ROWS || this.rows.has(at)) this.rows.set(at, told);
    else this.dropped += 1;
  }

  private append(told: Told, size: number): void {
    const at = place(told);
    if (this.seen.has(at)) return;
    this.told.push(at);
    if (this.told.length > KEEP_KEYS * 1.1) this.told.splice(0, this.told.length - KEEP_KEYS);
    this.entries.push({ told, size });
    this.size += size;
    if (this.entries.length <= KEEP_ENTRIES && this.size <= KEEP_SIZE) return;
    // A tenth at once, so that not each entry moves all the others.
    let drop = 0;
    while (
      drop < this.entries.length - 1 &&
      (this.entries.length - drop > KEEP_ENTRIES * 0.9 || this.size > KEEP_SIZE * 0.9)
    ) {
      this.size -= this.entries[drop]?.size ?? 0;
      drop += 1;
    }
    this.entries.splice(0, drop);
    this.dropped += drop;
  }
}

const place = ({ host, key }: { host: string; key: string }): string => `${host}\n${key}`;

export type Asking = {
  answer: Answer;
  phase: Phase;
  /** Why nothing was asked, or why the answer broke off. */
  error: Error | undefined;
  /** Counts up with every change, as the answer is changed in place. */
  version: number;
  /** Asks once more. */
  again: () => void;
};

/**
 * Asks hosts, as long as the page shows it; nothing where there is no request. One that is followed is asked again by
 * itself when the connection to the controller broke.
 */
export function useAnswer(request: Schemas["QueryCreate"] | undefined, shows: Schemas["Shows"]): Asking {
  const [round, setRound] = useState(0);
  const [version, setVersion] = useState(0);
  const key = request === undefined ? "" : JSON.stringify(request);
  const state = useRef<{ key: string; answer: Answer; phase: Phase; error: Error | undefined }>({
    key,
    answer: new Answer(shows),
    phase: key === "" ? "idle" : "asking",
    error: undefined,
  });

  // biome-ignore lint/correctness/useExhaustiveDependencies: a round is what asks the same once more
  useEffect(() => {
    const { key: before, answer: known } = state.current;
    const live = {
      key,
      // A table that is asked for once more is seen until there is a newer one.
      answer: before === key && shows === "table" ? known : new Answer(shows),
      phase: "asking" as Phase,
      error: undefined as Error | undefined,
    };
    state.current = live;
    // Thousands of items may come at once: the page is drawn once per frame at most.
    let frame = 0;
    const changed = () => {
      if (frame === 0) {
        frame = requestAnimationFrame(() => {
          frame = 0;
          setVersion((previous) => previous + 1);
        });
      }
    };
    changed();
    if (key === "") {
      live.phase = "idle";
      return () => cancelAnimationFrame(frame);
    }
    const gone = new AbortController();
    const ask = JSON.parse(key) as Schemas["QueryCreate"];
    const run = async () => {
      for (let attempt = 0; !gone.signal.aborted; attempt += 1) {
        const answer = new Answer(shows, live.answer);
        try {
          for await (const events of answerOf(ask, gone.signal)) {
            for (const event of events) {
              answer.take(event);
              attempt = 0;
            }
            // What was told before stays to be seen until there is something newer: rows of a table until a host has told all
            // of its own, or they would go and come back.
            const isNewer =
              shows === "entries" || live.answer.items().length === 0 || answer.hosts.size > 0 || answer.end;
            if (events.length > 0 && isNewer) live.answer = answer;
            live.phase = answer.end ? "ended" : "live";
            live.error = undefined;
            changed();
          }
          if (answer.end) return;
          throw new Error("the answer broke off");
        } catch (error) {
          if (gone.signal.aborted) return;
          live.error = error instanceof Error ? error : new Error(String(error));
          live.phase = isPassing(error) ? "lost" : "ended";
          changed();
          // What the controller refused it will refuse again.
          if (!isPassing(error) || !ask.follow) return;
        }
        await pause(PAUSES[Math.min(attempt, PAUSES.length - 1)] ?? 0, gone.signal);
      }
    };
    void run();
    return () => {
      gone.abort();
      cancelAnimationFrame(frame);
    };
  }, [key, shows, round]);

  const again = useMemo(() => () => setRound((previous) => previous + 1), []);
  return { ...state.current, version, again };
}

/** Whether the same may be answered in a moment: the connection broke, or the controller has too much to do or is restarting. */
const isPassing = (error: unknown): boolean =>
  !(error instanceof ApiError) || error.status === 429 || error.status >= 500;

/** The events of an answer, as many at a time as have come. */
async function* answerOf(body: Schemas["QueryCreate"], signal: AbortSignal): AsyncGenerator<ServerEvent[]> {
  const stream: unknown = await take(api.POST("/api/v1/queries", { body, parseAs: "stream", signal }));
  if (!(stream instanceof ReadableStream)) throw new Error("the answer has no content");
  const source = (stream as ReadableStream<Uint8Array>).getReader();
  const decoder = new TextDecoder();
  const reader = new EventReader();
  yield [];
  for (;;) {
    const { done, value } = await source.read();
    if (done) return;
    yield reader.push(decoder.decode(value, { stream: true }));
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
