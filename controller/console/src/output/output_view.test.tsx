import { renderToStaticMarkup } from "react-dom/server";
import { describe, expect, it } from "vitest";
import type { Schemas } from "../api/client";
import { OutputLog } from "./log";
import { OutputView } from "./output_view";

const run: Schemas["Run"] = {
  id: "01890000-0000-7000-8000-000000000001",
  operation: "01890000-0000-7000-8000-00000000000a",
  host: "web-1",
  step: 0,
  kind: "k",
  subject: "baseline",
  digest: "0".repeat(64),
  state: "running",
  output_bytes: 2048,
  output_dropped: 0,
  reattached: 0,
  seq: 1,
};

/** What a person reads of a run. */
function read(change: Partial<Schemas["Run"]>, log = new OutputLog()): string {
  const markup = renderToStaticMarkup(<OutputView run={{ ...run, ...change }} log={log} version={0} />);
  return markup.replace(/<[^>]*>/g, " ").replace(/\s+/g, " ");
}

describe("OutputView", () => {
  it("says what a run waits for", () => {
    const text = read({ state: "queued", state_detail: "waiting for host" });
    expect(text).toContain("queued");
    expect(text).toContain("Waiting for host");
    expect(read({ state: "queued" })).toContain("It has not started yet.");
  });

  it("says that the host was away and came back", () => {
    expect(read({ reattached: 2 })).toContain("re-attached 2 ×");
    expect(read({})).not.toContain("re-attached");
  });

  it("says that a run is lost, and why", () => {
    const text = read({ state: "lost", state_detail: "the host was rebooted or lost power" });
    expect(text).toContain("lost");
    expect(text).toContain("the host was rebooted or lost power");
  });

  it("shows steps and the report of an action of any kind", () => {
    const log = new OutputLog();
    const step = { step: "copy", state: "going" as const, words: "half of it", percent: 50 };
    log.append([{ at: "2026-01-02T03:04:05.678Z", step }]);
    const text = read({ report: { changed: true, after: { sub: "running" } } as never }, log);
    expect(text).toContain("copy under way half of it");
    expect(text).toContain("changed true");
    expect(text).toContain("sub running");
  });

  it("says how much is missing by the limit, and what the page let go", () => {
    expect(read({ output_dropped: 5 * 1024 * 1024 })).toContain("5.0 MiB dropped by the limit");
    expect(read({})).not.toContain("dropped");
    const log = new OutputLog();
    log.truncated = true;
    expect(read({}, log)).toContain("Older lines were let go here to keep the page light.");
    expect(read({}, log)).toContain("Download all of it");
  });
});
