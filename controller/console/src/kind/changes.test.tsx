import { renderToStaticMarkup } from "react-dom/server";
import { describe, expect, it } from "vitest";
import { Changes, changesOf, countOf } from "./changes";

describe("Changes", () => {
  it("shows what would be done, from what to what, and the lines that differ", () => {
    const report = {
      changes: [
        { what: "start nginx.service", before: "inactive", after: "active" },
        { what: "write /etc/x", diff: ["--- a", "+++ b", "@@ -1 +1 @@", "-old", "+new", " same"] },
      ],
      left_out: 3,
    };
    const page = renderToStaticMarkup(<Changes report={report} />);
    expect(page).toContain("start nginx.service");
    expect(page.match(/<del>.*inactive.*<\/del>.*<ins>.*active<\/ins>/)).not.toBeNull();
    expect(page.match(/class="line removed"/g)).toHaveLength(1);
    expect(page.match(/class="line added"/g)).toHaveLength(1);
    expect(page.match(/class="line head"/g)).toHaveLength(3);
    expect(page).toContain("And 3 more");
    expect(countOf(report)).toBe("5 changes");
  });

  it("says that nothing would change", () => {
    expect(renderToStaticMarkup(<Changes report={{ changes: [] }} />)).toContain("Nothing would change");
    expect(countOf({ changes: [] })).toBe("no change");
  });

  it("takes nothing for granted that a host says", () => {
    expect(changesOf({ changed: true })).toBeUndefined();
    expect(changesOf(null)).toBeUndefined();
    expect(
      changesOf({ changes: [1, null, { what: 2, before: {}, diff: [1, "+x"] }], left_out: "x" }),
    ).toEqual({
      changes: [{ what: "", diff: ["+x"] }],
      leftOut: 0,
    });
    const page = renderToStaticMarkup(<Changes report={{ changes: [{ what: "<script>\u202e" }] }} />);
    expect(page).not.toContain("<script>");
    expect(page).toContain("⟨U+202E⟩");
  });
});
