import { afterEach, describe, expect, it } from "vitest";
import type { Schemas } from "../api/client";
import { everything } from "../kind/sample";
import { type Page, show } from "../shell/sample";
import { DoForm } from "./do_form";
import { RehearsalView } from "./rehearsal";

let page: Page | undefined;
afterEach(() => page?.close());

const kind: Schemas["Kind"] = {
  name: "k",
  family: "action",
  summary: "Does something.",
  permission: "run",
  idempotent: true,
  dry_run: true,
  follows: false,
  timeout_s: 60,
  parameters: everything as never,
  answer: {} as never,
};

const run = (host: string, change: Partial<Schemas["Run"]>): Schemas["Run"] => ({
  id: host,
  operation: "o",
  host,
  step: 0,
  kind: "k",
  subject: "s",
  digest: "0",
  state: "succeeded",
  output_bytes: 0,
  output_dropped: 0,
  reattached: 0,
  seq: 1,
  ...change,
});

describe("DoForm", () => {
  const buttons = () =>
    [...(page?.element.querySelectorAll("button") ?? [])].map((button) => button.textContent);
  const value = (label: string) => {
    const found = [...(page?.element.querySelectorAll("label") ?? [])].find(
      (candidate) => candidate.querySelector("code")?.textContent === label,
    );
    return found?.querySelector<HTMLInputElement>("input, select, textarea")?.value;
  };

  it("has what it was given in its fields, and offers first to show what would change", async () => {
    page = await show(
      <DoForm kind={kind} params={{ what: "nginx", mode: "slow", count: 4, names: ["a", "b"] }} on="web-1" />,
    );
    expect([value("what"), value("mode"), value("count"), value("names")]).toEqual([
      "nginx",
      "slow",
      "4",
      "a\nb",
    ]);
    expect(buttons()).toContain("Show what would change");
    expect(page.element.querySelector("button.primary")?.textContent).toBe("Show what would change");
  });

  it("offers nothing of that for a kind that cannot tell", async () => {
    page = await show(<DoForm kind={{ ...kind, dry_run: false }} on="web-1" />);
    expect(buttons()).not.toContain("Show what would change");
    expect(page.element.querySelector("button.primary")?.textContent).toBe("Do it");
  });
});

describe("RehearsalView", () => {
  it("tells of hosts that say the same once, and of those that do not", async () => {
    const report = { changes: [{ what: "start x" }] } as never;
    page = await show(
      <RehearsalView
        number="OP-7"
        isUnderWay={false}
        runs={[
          run("web-3", { report: { changes: [] } as never }),
          run("web-1", { report }),
          run("web-2", { report }),
          run("web-4", { state: "refused", state_detail: "policy.kinds does not name `k`" }),
        ]}
      />,
    );
    expect(page.text()).toContain("web-1, web-2 2 hosts start x");
    expect(page.text().match(/start x/g)).toHaveLength(1);
    expect(page.text()).toContain("Nothing would change");
    expect(page.text()).toContain("Policy.kinds does not name `k`.");
    expect(page.element.querySelector("a")?.getAttribute("href")).toBe("/operations/OP-7");
  });
});
