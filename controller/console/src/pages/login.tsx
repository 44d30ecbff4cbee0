import { Navigate, useNavigate, useSearch } from "@tanstack/react-router";
import { useState } from "react";
import { useLogin, useMe } from "../api/queries";
import { Failure } from "../ui/notice";

export function LoginPage() {
  const { next } = useSearch({ from: "/login" });
  const me = useMe();
  const login = useLogin();
  const navigate = useNavigate();
  const [username, setUsername] = useState("");
  const [password, setPassword] = useState("");
  // Only a path of our own: a link to the login must not lead elsewhere.
  const target = next && /^\/(?![/\\])/.test(next) ? next : "/hosts";
  if (me.data && !me.error) return <Navigate to={target} replace />;
  return (
    <main className="login">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          login.mutate(
            { username, password },
            { onSuccess: () => void navigate({ to: target, replace: true }) },
          );
        }}
      >
        <img src="/favicon.svg" alt="" width={40} height={40} />
        <h1>Fleetward</h1>
        {login.error && <Failure error={login.error} />}
        <label>
          User
          <input
            name="username"
            autoComplete="username"
            autoCapitalize="none"
            spellCheck={false}
            required
            // biome-ignore lint/a11y/noAutofocus: the page has this one purpose
            autoFocus
            value={username}
            onChange={(event) => setUsername(event.target.value)}
          />
        </label>
        <label>
          Password
          <input
            name="password"
            type="password"
            autoComplete="current-password"
            required
            value={password}
            onChange={(event) => setPassword(event.target.value)}
          />
        </label>
        <button type="submit" className="primary" disabled={login.isPending}>
          {login.isPending ? "Logging in…" : "Log in"}
        </button>
      </form>
    </main>
  );
}
