import { act } from "react";
import { afterEach, describe, expect, it } from "vitest";
import type { Schemas } from "../api/client";
import { answered } from "../query/sample";
import { type Page, show } from "../shell/sample";
import { Acts } from "./acts";
import { Certificates, Holds } from "./certificates";
import { actsOf, ErrorLine, SiteCard } from "./site";
import { SiteNotes, SiteTable } from "./sites";

let page: Page | undefined;
afterEach(() => page?.close());

const site = (name: string, more = {}): [string, Record<string, unknown>] => [
  `/etc/nginx/sites-enabled/${name}`,
  {
    name,
    enabled: true,
    writer: "ours",
    server_names: [`${name}.example.com`],
    listen: ["80"],
    certificates: [],
    file: `/etc/nginx/sites-enabled/${name}`,
    ...more,
  },
];

describe("SiteTable", () => {
  const asking = answered(
    [
      site("b", { server_names: ["a", "b", "c", "d", "e"], more_names: 4 }),
      site("a", { enabled: false, writer: "edited" }),
      site("old", { writer: "foreign", target: "<img src=x> \u202eabc", listen: 7, server_names: "x" }),
    ],
    { state: "ended" },
  );
  const table = (search = "") => (
    <SiteTable asking={asking} host="web-1" search={search} onSearch={() => {}} onShowAll={() => {}} />
  );
  const names = () => [...(page?.element.querySelectorAll("tbody a") ?? [])].map((link) => link.textContent);

  it("shows whose sites there are, those that are not enabled last", async () => {
    page = await show(table());
    expect(names()).toEqual(["b", "old", "a"]);
    expect(page.element.querySelector("tbody a")?.getAttribute("href")).toBe("/hosts/web-1/sites/b");
    expect(page.text()).toContain("3 sites, 1 not enabled");
    const cell = page.element.querySelector("td[data-title='Answers to'] .names");
    expect([...(cell?.children ?? [])].map((name) => name.textContent)).toEqual(["a", "b", "and 7 more"]);
    expect(page.text()).toContain("changed by hand");
    expect(page.text()).toContain("somebody else");
    expect(page.element.querySelector("img")).toBeNull();
    expect(page.text()).toContain("⟨U+202E⟩abc");
  });

  it("finds by name, by what it answers to and by where it listens", async () => {
    page = await show(table("A.EXAMPLE"));
    expect(names()).toEqual(["a"]);
    page.close();
    page = await show(table("nowhere"));
    expect(page.text()).toContain("No site matches.");
  });

  it("draws no more than a page of thousands", { timeout: 60_000 }, async () => {
    const many = answered(
      Array.from({ length: 700 }, (_, n) => site(`s${n}`)),
      { state: "ended" },
    );
    page = await show(
      <SiteTable asking={many} host="web-1" search="" onSearch={() => {}} onShowAll={() => {}} />,
    );
    expect(page.element.querySelectorAll("tbody tr")).toHaveLength(300);
    expect(page.text()).toContain("700 sites");
  });
});

describe("SiteNotes", () => {
  const notes = (state: Schemas["QueryState"], detail?: string) => (
    <SiteNotes
      asking={answered([], { state, phase: "ended", ...(detail ? { detail } : {}) })}
      host="web-1"
      nothing="No sites."
    />
  );

  it("tells apart that there is no nginx, that it has no sites, and that the owner does not want it", async () => {
    page = await show(
      notes("failed", "there is no nginx on this host; leave this host out, or install it first"),
    );
    expect(page.text()).toContain("nginx is not installed");
    expect(page.text()).not.toContain("leave this host out");
    expect(page.element.querySelector(".notice.bad")).toBeNull();
    page.close();
    page = await show(notes("ended"));
    expect(page.text()).toContain("No sites.");
    page.close();
    page = await show(notes("refused", "the policy of this host does not allow queries of kind `sites`"));
    expect(page.text()).toContain("web-1 refused");
    expect(page.text()).toContain("The policy of this host does not allow");
    page.close();
    page = await show(notes("failed", "nginx does not take its configuration: unknown directive"));
    expect(page.text()).toContain("web-1 could not answer");
    expect(page.text()).toContain("unknown directive");
  });
});

describe("Certificates", () => {
  const DAY = 86_400_000;
  const certificate = (file: string, days: number, more = {}) => ({
    file,
    names: [`${file}.example.com`],
    sites: ["shop"],
    days_left: days,
    not_before: Date.now() - DAY,
    not_after: Date.now() + days * DAY,
    ...more,
  });

  it("puts first what does not hold, then what ends first", async () => {
    page = await show(
      <Certificates
        host="web-1"
        items={[
          certificate("/far", 80),
          certificate("/soon", 6),
          certificate("/past", -3),
          { file: "/odd", names: [], sites: [], problem: "permission denied" },
        ]}
      />,
    );
    const files = [...page.element.querySelectorAll("td[data-title=File]")].map((cell) => cell.textContent);
    expect(files).toEqual(["/odd", "/past", "/soon", "/far"]);
    expect(page.text()).toContain("cannot be read permission denied");
    expect(page.element.querySelector("td[data-title=File] a")?.getAttribute("href")).toContain(
      "file=%2Fodd",
    );
  });

  it.each([
    [80, {}, "80 days", undefined],
    [20, {}, "20 days left", "warn"],
    [1, {}, "1 day left", "warn"],
    [0, {}, "ends today", "warn"],
    [-1, {}, "ended 1 day ago", "bad"],
    [80, { not_before: Date.now() + DAY }, "not yet", "bad"],
    ["x", {}, "–", undefined],
  ])("says for how long it holds: %s", async (days, more, words, tone) => {
    page = await show(<Holds item={certificate("/a", 1, { days_left: days, ...more })} />);
    expect(page.text()).toContain(words);
    const badge = page.element.querySelector(".badge");
    expect(badge?.className).toBe(tone && `badge ${tone}`);
  });
});

describe("Acts", () => {
  const kind = (name: string, permission: string) =>
    ({
      name,
      permission,
      family: "action",
      summary: "Does.",
      parameters: {},
      answer: {},
      dry_run: true,
    }) as never;
  const ours = site("shop")[1];
  const acts = (item: Record<string, unknown>) => (
    <Acts host="web-1" subject="shop" acts={actsOf(item)} onDone={() => {}} />
  );
  const buttons = () => [...(page?.element.querySelectorAll("button") ?? [])];
  const labels = () => buttons().map((button) => button.textContent);

  it("offers what is to be done to who may do it", async () => {
    page = await show(acts(ours), [kind("site", "manage_hosts")], { permissions: ["read", "manage_hosts"] });
    expect(labels()).toEqual(["Test…", "Enable…", "Disable…", "Remove…"]);
    expect(buttons().map((button) => button.disabled)).toEqual([false, true, false, false]);
  });

  it("offers nothing to who may only read, nothing to do with what others wrote, and no kind that there is not", async () => {
    page = await show(acts(ours), [kind("site", "manage_hosts")], { permissions: ["read", "read_output"] });
    expect(labels()).toEqual([]);
    page.close();
    page = await show(acts({ ...ours, writer: "foreign" }), [kind("site", "run")]);
    expect(labels()).toEqual([]);
    page.close();
    page = await show(acts(ours), [kind("unit", "run")]);
    expect(labels()).toEqual([]);
  });

  it("tests without a button that does it", async () => {
    const parameters = { properties: { name: { type: "string" }, verb: { type: "string" } } };
    const known = { ...(kind("site", "run") as object), parameters } as never;
    page = await show(acts(ours), [known]);
    await act(async () => buttons()[0]?.click());
    expect(page.text()).toContain("Test shop");
    expect(labels()).toContain("Show what would change");
    expect(labels().filter((label) => label?.startsWith("Do it"))).toEqual([]);
    const values = [...page.element.querySelectorAll("input, textarea")].map(
      (field) => (field as HTMLInputElement).value,
    );
    expect(values).toContain("shop");
    expect(values).toContain("enable");
    expect(values).toContain("web-1");
  });
});

describe("one site", () => {
  it("shows its names, places and file as the text they are", async () => {
    page = await show(
      <SiteCard
        host="web-1"
        site={{ ...site("shop")[1], server_names: [], listen: ["443 ssl", "[::]:443 ssl"], target: "<b>" }}
      />,
    );
    expect(page.text()).toContain("whatever no other site answers to");
    expect(page.text()).toContain("[::]:443 ssl");
    expect(page.element.querySelector("b")).toBeNull();
    expect(page.element.querySelector("a")?.textContent).toBe("/etc/nginx/sites-enabled/shop");
  });

  it("shows a line of its log with how bad it is, and takes nothing for granted", async () => {
    const told = (item: Record<string, unknown>) => ({ host: "web-1", key: "1", item });
    page = await show(
      <ErrorLine
        told={told({
          time: "2026/01/02 03:04:05",
          level: "error",
          log: "/var/log/nginx/error.log",
          message: "a <b>",
        })}
      />,
    );
    expect(page.text()).toContain("2026/01/02 03:04:05 error.log error: a <b>");
    expect(page.element.querySelector(".entry.bad")).not.toBeNull();
    page.close();
    page = await show(<ErrorLine told={told({ message: 7, level: {} })} />);
    expect(page.text()).toContain("–");
  });
});
