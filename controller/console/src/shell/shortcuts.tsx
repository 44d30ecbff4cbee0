// The keyboard: one letter to search, two to go somewhere.

import { useNavigate } from "@tanstack/react-router";
import { useEffect } from "react";
import { Dialog } from "../ui/dialog";
import { usePlaces } from "./places";

export function useShortcuts(onHelp: () => void): void {
  const navigate = useNavigate();
  const places = usePlaces();
  useEffect(() => {
    let going = false;
    const press = (event: KeyboardEvent) => {
      const target = event.target as HTMLElement | null;
      const typing = target?.closest("input, textarea, select, dialog") != null;
      if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
      if (going) {
        going = false;
        const place = places.find((place) => place.key === event.key);
        if (place) {
          event.preventDefault();
          void navigate({ to: place.to });
        }
      } else if (event.key === "g") {
        going = true;
      } else if (event.key === "/") {
        const search = document.querySelector<HTMLInputElement>("input[type=search]");
        if (search) {
          event.preventDefault();
          search.focus();
        }
      } else if (event.key === "r" || event.key === "d") {
        const button = document.querySelector<HTMLButtonElement>(`button[data-key=${event.key}]`);
        if (button) {
          event.preventDefault();
          button.click();
        }
      } else if (event.key === "?") {
        onHelp();
      }
    };
    document.addEventListener("keydown", press);
    return () => document.removeEventListener("keydown", press);
  }, [navigate, places, onHelp]);
}

export function Shortcuts({ onClose }: { onClose: () => void }) {
  const places = usePlaces();
  return (
    <Dialog title="Keys" onClose={onClose}>
      <dl className="keys">
        {places.map(({ key, name }) => (
          <div key={key}>
            <dt>
              <kbd>g</kbd> <kbd>{key}</kbd>
            </dt>
            <dd>go to the {name.toLowerCase()}</dd>
          </div>
        ))}
        <div>
          <dt>
            <kbd>/</kbd>
          </dt>
          <dd>search on this page</dd>
        </div>
        <div>
          <dt>
            <kbd>r</kbd>
          </dt>
          <dd>run a script from this page</dd>
        </div>
        <div>
          <dt>
            <kbd>d</kbd>
          </dt>
          <dd>do something of any other kind from this page</dd>
        </div>
        <div>
          <dt>
            <kbd>?</kbd>
          </dt>
          <dd>these keys</dd>
        </div>
      </dl>
    </Dialog>
  );
}
