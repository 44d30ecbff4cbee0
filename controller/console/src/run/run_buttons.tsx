// The two ways to start something, next to each other.

import { useState } from "react";
import { DoDialog } from "./do_dialog";
import { KIND, RunDialog } from "./run_dialog";

export function RunButtons({ on }: { on?: string }) {
  const [open, setOpen] = useState<"do" | "run">();
  const dialog = { ...(on ? { on } : {}), onClose: () => setOpen(undefined) };
  return (
    <>
      <button type="button" data-key="d" onClick={() => setOpen("do")}>
        Do something…
      </button>
      <button type="button" className="primary" data-key="r" onClick={() => setOpen("run")}>
        Run a script…
      </button>
      {open === "do" && <DoDialog except={[KIND]} {...dialog} />}
      {open === "run" && <RunDialog {...dialog} />}
    </>
  );
}
