import { act } from "react";
import { afterEach, describe, expect, it } from "vitest";
import { Answer, KEEP_ENTRIES } from "../api/answer";
import { fieldsOf } from "../kind/schema";
import { type Page, show } from "../shell/sample";
import { Entry, Items } from "./items";
import { answered } from "./sample";

let page: Page | undefined;
afterEach(() => page?.close());

const fields = fieldsOf({
  required: ["name"],
  properties: {
    name: { type: "string" },
    since: { type: "integer", format: "unix-ms" },
    deep: { type: "object" },
  },
});

describe("Items", () => {
  it("makes a table of any kind, in the order of its schema", async () => {
    const asking = answered([
      ["a", { since: 1767323045000, name: "<b>a</b>", deep: { x: 1 } }],
      ["b", { name: "b", odd: [1, 2] }],
    ]);
    page = await show(<Items asking={asking} fields={fields} />);
    const heads = [...page.element.querySelectorAll("th")].map((head) => head.textContent);
    expect(heads).toEqual(["name", "since", "odd", "All of it"]);
    expect(page.element.querySelector("b")).toBeNull();
    expect(page.element.querySelector("time")?.getAttribute("datetime")).toBe("2026-01-02T03:04:05.000Z");
    expect(page.text()).toContain("1, 2");
    // What has no column is in the row that is opened.
    expect(page.text()).not.toContain("deep");
    const open = page.element.querySelector<HTMLButtonElement>("button[aria-expanded]");
    act(() => open?.click());
    expect(page.text()).toContain("deepx1");
  });

  it("names the hosts where there are several", async () => {
    const asking = answered([["a", { name: "a" }]]);
    asking.answer.take({
      name: "item",
      data: JSON.stringify({ host: "web-2", key: "a", item: { name: "a" } }),
    });
    page = await show(<Items asking={asking} fields={fields} />);
    expect(page.text()).toContain("Host");
    expect(page.text()).toContain("web-2");
  });

  it("shows bytes as the text they are, across pieces, and others by their size", async () => {
    const fields = fieldsOf({
      properties: { offset: { type: "integer" }, data: { type: ["string", "null"], format: "byte" } },
    });
    const piece = (...parts: number[]) => btoa(String.fromCharCode(...parts));
    const asking = answered(
      [
        ["0", { offset: 0, data: piece(0x61, 0x0a, 0xc3) }],
        ["3", { offset: 3, data: piece(0xa4, 0x3c, 0x62, 0x3e) }],
        ["7", { offset: 7, data: piece(0, 1, 2, 255) }],
      ],
      { shows: "entries" },
    );
    const told = asking.answer.items();
    page = await show(
      told.map((entry, index) => (
        <p key={entry.key}>
          <Entry told={entry} next={told[index + 1]} fields={fields} hosts={1} />
        </p>
      )),
    );
    const lines = [...page.element.querySelectorAll("p")].map((entry) => entry.textContent);
    expect(lines).toEqual(["offset 0 a\nä", "offset 3 <b>", "offset 7 no text, 4 B"]);
  });

  it("says that older entries were let go", async () => {
    const asking = answered([], { shows: "entries" });
    expect(asking.answer).toBeInstanceOf(Answer);
    for (let n = 0; n <= KEEP_ENTRIES; n += 1) {
      asking.answer.take({ name: "item", data: JSON.stringify({ host: "web-1", key: `${n}`, item: { n } }) });
    }
    page = await show(<Items asking={asking} fields={fields} />);
    expect(page.text()).toContain(`${asking.answer.dropped} older entries were let go`);
    expect(page.element.querySelector("[role=log]")?.getAttribute("tabindex")).toBe("0");
  });
});
