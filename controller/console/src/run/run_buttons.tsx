// The two ways to start something, next to each other.

import { useState } from "react";
import { useMay } from "../api/queries";
import { DoDialog } from "./do_dialog";
import { KIND, RunDialog } from "./run_dialog";

/** `keys` are for the buttons of a page as a whole: of those in a row the first would take them. */
export function RunButtons({ on, keys = true }: { on?: string; keys?: boolean }) {
  const [open, setOpen] = useState<"do" | "run">();
  const may = useMay();
  const dialog = { ...(on ? { on } : {}), onClose: () => setOpen(undefined) };
  // What every action takes at the least.
  if (!may("run")) return null;
  return (
    <>
      <button type="button" data-key={keys ? "d" : undefined} onClick={() => setOpen("do")}>
        Do something…
      </button>
      <button
        type="button"
        className={keys ? "primary" : ""}
        data-key={keys ? "r" : undefined}
        onClick={() => setOpen("run")}
      >
        Run a script…
      </button>
      {open === "do" && <DoDialog except={[KIND]} {...dialog} />}
      {open === "run" && <RunDialog {...dialog} />}
    </>
  );
}
