import { renderToStaticMarkup } from "react-dom/server";
import { describe, expect, it } from "vitest";
import type { Schemas } from "../api/client";
import { Duplicate } from "./duplicate";

const machine = (address: string, boot_id: string): Schemas["Machine"] => ({
  address,
  boot_id,
  journal_id: "01890000-0000-7000-8000-000000000001",
  first_seen: "2026-01-01T10:00:00.000Z",
  last_seen: "2026-01-01T10:05:00.000Z",
});

describe("Duplicate", () => {
  it("names both machines and the remedy", () => {
    const duplicate: Schemas["DuplicateIdentity"] = {
      machines: [machine("192.0.2.1", "boot-a"), machine("2001:db8::2", "boot-b")],
      since: "2026-01-01T10:00:00.000Z",
      at: "2026-01-01T10:05:00.000Z",
      changes: 5,
      remedy: "stop the agent on the machine that is to go",
    };
    const text = renderToStaticMarkup(<Duplicate duplicate={duplicate} />);
    for (const part of ["192.0.2.1", "2001:db8::2", "boot-a", "boot-b", "5 ×"]) expect(text).toContain(part);
    expect(text).toContain("Stop the agent on the machine that is to go.");
  });

  it("says nothing of a host that is one machine", () => {
    expect(renderToStaticMarkup(<Duplicate duplicate={null} />)).toBe("");
  });
});
