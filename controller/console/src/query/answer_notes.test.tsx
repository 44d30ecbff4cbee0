import { renderToStaticMarkup } from "react-dom/server";
import { describe, expect, it } from "vitest";
import { ApiError } from "../api/client";
import { AnswerNotes } from "./answer_notes";
import { answered } from "./sample";

const read = (asking: Parameters<typeof AnswerNotes>[0]["asking"]) =>
  renderToStaticMarkup(<AnswerNotes asking={asking} nothing="No unit." />);

const rule =
  "policy.rules.units.units in /etc/agent.toml, line 5, does not name `x`; its owner can add it there, on the host";

describe("AnswerNotes", () => {
  it("waits, and says when there is nothing", () => {
    expect(read(answered([], { phase: "asking" }))).toContain('aria-label="Loading"');
    expect(read(answered([], { state: "complete" }))).toContain("No unit.");
    expect(read(answered([["a", {}]], { state: "ended" }))).toBe("");
  });

  it("shows the owner's rule, and does not offer to ask again what stays refused", () => {
    const text = read(answered([], { state: "refused", detail: rule, phase: "ended" }));
    expect(text).toContain("web-1 refused");
    expect(text).toContain("line 5, does not name `x`");
    expect(text).not.toContain("Ask again");
    expect(text).not.toContain("No unit.");
  });

  it("tells a host that is offline from one that broke off its answer", () => {
    const offline = read(answered([], { state: "offline", detail: "it is not connected", phase: "ended" }));
    expect(offline).toContain("web-1 is offline");
    expect(offline).toContain("It is not connected.");
    expect(read(answered([], { state: "failed", detail: "no bus" }))).toContain("web-1 could not answer");
    const gone = read(answered([["a", {}]], { state: "failed", detail: "it went away" }));
    expect(gone).toContain("web-1 broke off its answer");
    expect(gone).toContain("What is shown here is what it told before.");
    expect(gone).toContain("Ask again");
  });

  it("shows what the controller refused, and a connection that broke", () => {
    const denied = new ApiError(403, "FORBIDDEN", "you need the permission read_output");
    expect(read(answered([], { phase: "ended", error: denied }))).toContain(
      "You need the permission read_output.",
    );
    expect(read(answered([["a", {}]], { phase: "lost", error: new Error("x") }))).toContain("Not up to date");
    expect(read(answered([], { phase: "lost", error: new Error("x") }))).toContain("cannot be reached");
  });

  it("shows markup as the text it is", () => {
    expect(read(answered([], { state: "failed", detail: "<img src=x>" }))).not.toContain("<img");
  });
});
