// Live things: server-sent events. The browser resumes by itself with `Last-Event-ID`.

import { useQueryClient } from "@tanstack/react-query";
import { useEffect, useRef, useState } from "react";
import { OutputLog } from "../output/log";
import type { Schemas } from "./client";

export type Connection = "connecting" | "live" | "lost" | "ended";

/** Characters of reports that are kept: ten thousand dry runs may have hundreds of megabytes of them. */
const KEEP_REPORTS = 16 * 1024 * 1024;

/** What of the reports of an operation's runs is kept. */
export class Reports {
  /** The runs whose reports were let go: whoever opens one loads it. */
  readonly letGo = new Set<string>();
  private sizes = new Map<string, number>();
  private size = 0;

  /** A run as it is kept: with its report while there is room. `size` is about how long that is. */
  take(run: Schemas["Run"], size: number): Schemas["Run"] {
    this.size -= this.sizes.get(run.id) ?? 0;
    this.sizes.delete(run.id);
    this.letGo.delete(run.id);
    if (!run.report) return run;
    if (this.size + size > KEEP_REPORTS) {
      this.letGo.add(run.id);
      const { report: _, ...rest } = run;
      return rest;
    }
    this.sizes.set(run.id, size);
    this.size += size;
    return run;
  }
}

export type LiveOperation = {
  operation: Schemas["Operation"] | undefined;
  runs: Map<string, Schemas["Run"]>;
  reports: Reports;
  logs: Map<string, OutputLog>;
  connection: Connection;
  /** Counts up with every change, as the maps are changed in place. */
  version: number;
};

/** Follows one operation: its state, its runs and their output, from the first event on. */
export function useLiveOperation(id: string): LiveOperation {
  const state = useRef<Omit<LiveOperation, "version">>(fresh());
  const [version, setVersion] = useState(0);

  useEffect(() => {
    const live = fresh();
    state.current = live;
    // Ten thousand hosts may speak at once: the page is drawn once per frame at most.
    let frame = 0;
    const changed = () => {
      if (frame === 0) {
        frame = requestAnimationFrame(() => {
          frame = 0;
          setVersion((previous) => previous + 1);
        });
      }
    };
    const source = new EventSource(`/api/v1/operations/${encodeURIComponent(id)}/events`);
    const on = (name: string, handle: (data: string) => void) =>
      source.addEventListener(name, (event) => {
        live.connection = "live";
        handle((event as MessageEvent<string>).data);
        changed();
      });
    on("operation", (data) => {
      live.operation = JSON.parse(data) as Schemas["Operation"];
    });
    on("run", (data) => {
      const run = JSON.parse(data) as Schemas["Run"];
      live.runs.set(run.id, live.reports.take(run, data.length));
    });
    on("output", (data) => {
      const output = JSON.parse(data) as Schemas["OutputEvent"];
      const log = live.logs.get(output.run) ?? new OutputLog();
      log.append(output.pieces);
      live.logs.set(output.run, log);
    });
    on("end", () => {
      live.connection = "ended";
      source.close();
    });
    source.onopen = () => {
      live.connection = "live";
      changed();
    };
    source.onerror = () => {
      live.connection = source.readyState === EventSource.CLOSED ? "ended" : "lost";
      changed();
    };
    return () => {
      source.close();
      if (frame !== 0) cancelAnimationFrame(frame);
    };
  }, [id]);

  return { ...state.current, version };
}

function fresh(): Omit<LiveOperation, "version"> {
  return {
    operation: undefined,
    runs: new Map(),
    reports: new Reports(),
    logs: new Map(),
    connection: "connecting",
  };
}

/** Keeps lists fresh while the console is open: the controller says what changed. */
export function useFleetEvents(): Connection {
  const client = useQueryClient();
  const [connection, setConnection] = useState<Connection>("connecting");

  useEffect(() => {
    const source = new EventSource("/api/v1/events");
    const stale = new Set<string>();
    let timer: ReturnType<typeof setTimeout> | undefined;
    // A burst of changes is one reload of each list.
    const refresh = (...keys: string[]) => {
      for (const key of keys) stale.add(key);
      timer ??= setTimeout(() => {
        timer = undefined;
        for (const key of stale) void client.invalidateQueries({ queryKey: [key] });
        stale.clear();
      }, 300);
    };
    source.addEventListener("host", () => refresh("hosts", "host"));
    source.addEventListener("operation", () => refresh("operations"));
    source.addEventListener("resync", () => refresh("hosts", "host", "operations", "scripts", "repo"));
    source.onopen = () => {
      setConnection("live");
      // What happened while nobody listened is not replayed here.
      refresh("hosts", "host", "operations", "scripts", "repo");
    };
    source.onerror = () => setConnection("lost");
    return () => {
      source.close();
      if (timer) clearTimeout(timer);
    };
  }, [client]);

  return connection;
}
