import { afterEach, describe, expect, it } from "vitest";
import type { Told } from "../api/answer";
import { textIn } from "../output/bytes";
import { answered } from "../query/sample";
import { type Page, show } from "../shell/sample";
import { bytesOf, Content } from "./file";
import { crumbsOf, Directory, pathOf } from "./files";
import { LogLine } from "./log";
import { UnitParts } from "./unit";
import { UnitTable } from "./units";

let page: Page | undefined;
afterEach(() => page?.close());

const unit = (name: string, active: string, more = {}) =>
  [name, { name, description: `About ${name}`, load: "loaded", active, sub: "running", ...more }] as [
    string,
    Record<string, unknown>,
  ];

const told = (item: Record<string, unknown>, key = "k"): Told => ({ host: "web-1", key, item });

describe("UnitTable", () => {
  const asking = answered(
    [
      unit("b.service", "active", { memory: 1024 * 1024 }),
      unit("a.service", "inactive", { sub: "dead" }),
      unit("z.service", "failed", { result: "exit-code" }),
      unit("evil.service", "active", { description: "<img src=x onerror=alert(1)> \u202eabc", memory: "x" }),
    ],
    { state: "complete" },
  );
  const table = (search = "", state = "") => (
    <UnitTable asking={asking} host="web-1" search={search} state={state} onShowAll={() => {}} />
  );
  const names = () => [...(page?.element.querySelectorAll("tbody a") ?? [])].map((link) => link.textContent);

  it("puts first what failed, and leads to each unit", async () => {
    page = await show(table());
    expect(names()).toEqual(["z.service", "a.service", "b.service", "evil.service"]);
    expect(page.text()).toContain("4 loaded, 1 failed");
    expect(page.text()).toContain("failed: exit-code");
    expect(page.text()).toContain("1.0 MiB");
    expect(page.element.querySelector("tbody a")?.getAttribute("href")).toBe("/hosts/web-1/units/z.service");
  });

  it("finds by name, description and state", async () => {
    page = await show(table("B.SERV"));
    expect(names()).toEqual(["b.service"]);
    page.close();
    page = await show(table("", "inactive"));
    expect(names()).toEqual(["a.service"]);
    page.close();
    page = await show(table("nowhere"));
    expect(page.text()).toContain("No unit matches.");
  });

  it("shows what a host says as the text it is", async () => {
    page = await show(table("evil"));
    expect(page.element.querySelector("img")).toBeNull();
    expect(page.text()).toContain("⟨U+202E⟩abc");
  });
});

describe("UnitParts", () => {
  it("shows state, files, dependencies and properties, each in its order", async () => {
    page = await show(
      <UnitParts
        host="web-1"
        told={[
          told({ part: "about", name: "memory", value: 2048 }, "about memory"),
          told({ part: "about", name: "needs_daemon_reload", value: "yes" }, "about needs"),
          told({ part: "file", name: "/b.conf", file: 2, from: 1, lines: ["[Service]"] }, "file 02 000001"),
          told({ part: "file", name: "/a.service", file: 1, from: 3, lines: ["c"] }, "file 01 000003"),
          told({ part: "file", name: "/a.service", file: 1, from: 1, lines: ["a", "b"] }, "file 01 000001"),
          told(
            { part: "dependency", name: "After", from: 1, units: ["x.target"] },
            "dependency After 000001",
          ),
          told({ part: "property", name: "KillMode", value: "process" }, "property KillMode"),
          told({ part: 7, name: {} }, "odd"),
        ]}
      />,
    );
    expect(page.text()).toContain("2.0 KiB");
    expect(page.text()).toContain("daemon-reload makes the change count");
    const files = [...page.element.querySelectorAll(".file-part summary code")].map(
      (code) => code.textContent,
    );
    expect(files).toEqual(["/a.service", "/b.conf"]);
    expect(page.element.querySelector(".source")?.textContent).toBe("a\nb\nc\n");
    const other = page.element.querySelector(".dependencies a");
    expect(other?.getAttribute("href")).toBe("/hosts/web-1/units/x.target");
    expect(page.text()).toContain("KillModeprocess");
  });
});

describe("LogLine", () => {
  it("shows every line, who wrote it and how bad it is", async () => {
    const entry = told({
      time: 1767323045000,
      unit: "app.service",
      identifier: "app",
      pid: 7,
      priority: "err",
      message: ["first", "  second <b>"],
      truncated: true,
    });
    page = await show(<LogLine told={entry} host="web-1" hasUnit />);
    expect(page.element.querySelector("time")?.getAttribute("datetime")).toBe("2026-01-02T03:04:05.000Z");
    expect(page.element.querySelector(".message")?.textContent).toBe(
      "err: first\n  second <b> … (it says more)",
    );
    expect(page.text()).toContain("app[7]");
    expect(page.element.querySelector("a")?.getAttribute("href")).toBe("/hosts/web-1/units/app.service");
  });

  it("takes nothing for granted", async () => {
    page = await show(<LogLine told={told({ time: "x", message: 3 })} host="web-1" hasUnit />);
    expect(page.text()).toContain("–");
  });
});

describe("Directory", () => {
  it("shows directories first, and leads into them and to files", async () => {
    const file = (name: string, type: string, more = {}) =>
      [name, { name, type, size: 5, mode: "0644", owner: "root", group: "adm", modified: 0, ...more }] as [
        string,
        Record<string, unknown>,
      ];
    const asking = answered(
      [
        file(".", "directory", { next: "z", left_out: 12 }),
        file("a", "file"),
        file("d", "directory"),
        file("l", "link", { target: "/x" }),
        file("\\xff", "file", { path: "base64:L2V0Yy//" }),
      ],
      { state: "ended" },
    );
    page = await show(
      <Directory asking={asking} host="web-1" path="/etc" hidden={undefined} after={undefined} />,
    );
    const links = [...page.element.querySelectorAll("tbody a")].map((link) => [
      link.textContent,
      new URL(link.getAttribute("href") ?? "", "http://x").search,
    ]);
    expect(links).toEqual([
      ["d/", "?path=%2Fetc%2Fd"],
      ["\\xff", "?path=%2Fetc&file=base64%3AL2V0Yy%2F%2F"],
      ["a", "?path=%2Fetc&file=%2Fetc%2Fa"],
      ["l", "?path=%2Fetc&file=%2Fetc%2Fl"],
    ]);
    expect(page.text()).toContain("→ /x");
    expect(page.text()).toContain("12 more names.");
  });

  it("knows the way to a path", () => {
    expect(crumbsOf("/").map(({ name }) => name)).toEqual(["/"]);
    expect(crumbsOf("/etc//nginx/")).toEqual([
      { name: "/", path: "/" },
      { name: "etc", path: "/etc" },
      { name: "nginx", path: "/etc/nginx" },
    ]);
    expect(crumbsOf("base64:L/8=")).toEqual([{ name: "base64:L/8=", path: "base64:L/8=" }]);
    expect(pathOf("/", { name: "etc" })).toBe("/etc");
  });
});

describe("Content", () => {
  const piece = (offset: number, text: string) => told({ offset, data: btoa(text) }, String(offset));

  it("puts the pieces together, and ends where one is missing", () => {
    const pieces = [told({ file: { size: 6 } }), piece(0, "ab"), piece(2, "cd"), piece(9, "zz")];
    expect(new TextDecoder().decode(bytesOf(pieces))).toBe("abcd");
    expect(bytesOf([told({ offset: 0, data: "%%%" })]).length).toBe(0);
  });

  it("tells text from what is none", () => {
    const of = (...bytes: number[]) => textIn(Uint8Array.from(bytes));
    expect(of(0x68, 0xc3, 0xa4)).toBe("hä");
    // Cut off within a character.
    expect(of(0x68, 0xc3)).toBe("h");
    expect(of(0x68, 0xff)).toBeUndefined();
    expect(of(0x68, 0)).toBeUndefined();
  });

  it("says that a file is no text, empty, or longer than what is shown", async () => {
    page = await show(<Content told={[piece(0, "\x7fELF\0")]} size={5} isWhole />);
    expect(page.text()).toContain("This is no text");
    expect(page.text()).toContain("7f 45 4c 46 00");
    page.close();
    page = await show(<Content told={[]} size={0} isWhole />);
    expect(page.text()).toContain("The file is empty.");
    page.close();
    page = await show(<Content told={[piece(0, "a\n<b>\n")]} size={10_000} isWhole />);
    expect(page.text()).toContain("The first 6 B of 9.8 KiB are shown.");
    expect(page.element.querySelectorAll(".source .line").length).toBe(2);
    expect(page.element.querySelector(".source b")).toBeNull();
  });
});
