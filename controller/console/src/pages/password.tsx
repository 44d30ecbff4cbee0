import { useState } from "react";
import { usePasswordChange } from "../api/queries";
import { Failure } from "../ui/notice";

const MINIMUM = 12;

/** A one-time password opens this form and nothing else. */
export function PasswordForm({ username }: { username: string }) {
  const change = usePasswordChange();
  const [current, setCurrent] = useState("");
  const [wanted, setWanted] = useState("");
  const [again, setAgain] = useState("");
  const differs = again !== "" && again !== wanted;
  return (
    <main className="login">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (wanted === again) change.mutate({ current, new: wanted });
        }}
      >
        <h1>Choose a password</h1>
        <p className="muted">
          {username} was logged in with a one-time password. Choose one of your own, {MINIMUM} characters or
          more.
        </p>
        {change.error && <Failure error={change.error} />}
        <input type="hidden" name="username" autoComplete="username" value={username} readOnly />
        <label>
          One-time password
          <input
            type="password"
            autoComplete="current-password"
            required
            value={current}
            onChange={(event) => setCurrent(event.target.value)}
          />
        </label>
        <label>
          New password
          <input
            type="password"
            autoComplete="new-password"
            minLength={MINIMUM}
            required
            value={wanted}
            onChange={(event) => setWanted(event.target.value)}
          />
        </label>
        <label>
          New password, again
          <input
            type="password"
            autoComplete="new-password"
            required
            value={again}
            aria-invalid={differs}
            onChange={(event) => setAgain(event.target.value)}
          />
        </label>
        {differs && <p className="field-error">The two do not match.</p>}
        <button type="submit" className="primary" disabled={change.isPending || differs}>
          Change the password
        </button>
      </form>
    </main>
  );
}
