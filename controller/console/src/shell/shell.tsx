// The frame around every page: who, where, and whether what is on screen is fresh.

import { Link, Navigate, Outlet, useLocation, useNavigate } from "@tanstack/react-router";
import { useEffect, useState } from "react";
import { ApiError } from "../api/client";
import { type Connection, useFleetEvents } from "../api/events";
import { useLogout, useMe } from "../api/queries";
import { PasswordForm } from "../pages/password";
import { Failure, Loading } from "../ui/notice";
import { usePlaces } from "./places";
import { Shortcuts, useShortcuts } from "./shortcuts";
import { storedTheme, storeTheme, type Theme } from "./theme";

export function Shell() {
  const me = useMe();
  const location = useLocation();
  if (me.isPending) return <Loading />;
  if (me.error instanceof ApiError && me.error.status === 401) {
    // While the login page is on its way this frame is drawn once more, at the new address.
    if (location.pathname === "/login") return <Loading />;
    return <Navigate to="/login" search={{ next: location.href }} replace />;
  }
  if (me.error && !me.data) return <Failure error={me.error} retry={() => void me.refetch()} />;
  if (me.data?.must_change_password) return <PasswordForm username={me.data.username} />;
  return <Frame username={me.data?.username ?? ""} />;
}

function Frame({ username }: { username: string }) {
  const connection = useFleetEvents();
  const places = usePlaces();
  const [help, setHelp] = useState(false);
  useShortcuts(() => setHelp(true));
  return (
    <div className="shell">
      <a className="skip" href="#content">
        Skip to content
      </a>
      <nav aria-label="Main">
        <Link to="/hosts" className="brand">
          <img src="/favicon.svg" alt="" width={24} height={24} />
          Fleetward
        </Link>
        <ul>
          {places.map((place) => (
            <li key={place.to}>
              <Link
                to={place.to}
                activeProps={{ "aria-current": "page" }}
                activeOptions={{ includeSearch: false }}
              >
                <span aria-hidden="true" className="icon">
                  {place.icon}
                </span>
                {place.name}
              </Link>
            </li>
          ))}
        </ul>
        <footer>
          <Freshness connection={connection} />
          <ThemeChoice />
          <button type="button" className="quiet" onClick={() => setHelp(true)}>
            Keys <kbd>?</kbd>
          </button>
          <Logout username={username} />
        </footer>
      </nav>
      <main id="content" tabIndex={-1}>
        <Outlet />
      </main>
      {help && <Shortcuts onClose={() => setHelp(false)} />}
    </div>
  );
}

function Freshness({ connection }: { connection: Connection }) {
  if (connection === "live") {
    return (
      <span className="fresh live" title="Changes appear by themselves">
        ● Live
      </span>
    );
  }
  return (
    <span className="fresh lost" role="status">
      ◌ {connection === "connecting" ? "Connecting…" : "Connection lost, trying again"}
    </span>
  );
}

function ThemeChoice() {
  const [theme, setTheme] = useState(storedTheme);
  useEffect(() => storeTheme(theme), [theme]);
  return (
    <label className="theme">
      <span className="visually-hidden">Theme</span>
      <select value={theme} onChange={(event) => setTheme(event.target.value as Theme)}>
        <option value="system">System theme</option>
        <option value="light">Light</option>
        <option value="dark">Dark</option>
      </select>
    </label>
  );
}

function Logout({ username }: { username: string }) {
  const logout = useLogout();
  const navigate = useNavigate();
  return (
    <button
      type="button"
      className="quiet"
      onClick={() => logout.mutate(undefined, { onSettled: () => void navigate({ to: "/login" }) })}
    >
      Log out {username}
    </button>
  );
}
