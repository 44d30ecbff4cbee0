// Run a script: what, with which arguments, where, how. The targets are shown before anything starts.

import { useState } from "react";
import type { Schemas } from "../api/client";
import { useScripts } from "../api/queries";
import { Dialog } from "../ui/dialog";
import { Failure, Loading } from "../ui/notice";
import { split } from "./arguments";
import { StartFields, useStart } from "./start";

/** The kind of action that this dialog asks for. */
export const KIND = "script";

export function RunDialog({ script, on, onClose }: { script?: string; on?: string; onClose: () => void }) {
  const scripts = useScripts();
  const [name, setName] = useState(script ?? "");
  const [line, setLine] = useState("");
  const [variables, setVariables] = useState<Record<string, string>>({});
  const [user, setUser] = useState("");
  const chosen = scripts.data?.find((candidate) => candidate.name === name);
  const parsed = split(line);
  const start = useStart({
    what:
      chosen && "words" in parsed
        ? {
            scripts: [{ name: chosen.name, arguments: parsed.words }],
            environment: given(chosen.environment, variables),
            ...(user && chosen.users.includes(user) ? { user } : {}),
          }
        : undefined,
    on,
    onStarted: onClose,
  });

  return (
    <Dialog title="Run a script" onClose={onClose}>
      <form
        className="fields run"
        onSubmit={(event) => {
          event.preventDefault();
          start.submit();
        }}
      >
        {scripts.isPending && <Loading />}
        {scripts.error && !scripts.data && <Failure error={scripts.error} />}
        <label>
          Script
          <select required value={name} onChange={(event) => setName(event.target.value)}>
            <option value="" disabled>
              Choose…
            </option>
            {scripts.data?.map((candidate) => (
              <option key={candidate.name} value={candidate.name}>
                {candidate.title} ({candidate.name})
              </option>
            ))}
          </select>
        </label>
        {chosen && <p className="muted small">{chosen.description}</p>}
        <label>
          Arguments <span className="muted">quoted as in a shell, but never given to one</span>
          <input
            className="mono"
            spellCheck={false}
            autoCapitalize="none"
            value={line}
            aria-invalid={"error" in parsed}
            onChange={(event) => setLine(event.target.value)}
          />
        </label>
        {"error" in parsed && <p className="field-error">{parsed.error}</p>}
        {chosen && chosen.flags.length > 0 && (
          <p className="tags">
            {chosen.flags.map((flag) => {
              const text = flag.requires_value
                ? `${flag.flag}=`
                : flag.default != null
                  ? `${flag.flag}=${flag.default}`
                  : flag.flag;
              return (
                <button
                  key={flag.flag}
                  type="button"
                  className="tag"
                  title={flag.requires_value ? "required, with a value" : "add this argument"}
                  onClick={() => setLine((previous) => `${previous.trimEnd()} ${text}`.trimStart())}
                >
                  {text}
                </button>
              );
            })}
          </p>
        )}
        {chosen?.environment.map((variable) => (
          <label key={variable.name}>
            <code>{variable.name}</code>{" "}
            <span className="muted">
              {[variable.description, variable.required ? "required" : "optional"].filter(Boolean).join("; ")}
            </span>
            <input
              className="mono"
              type={variable.secret ? "password" : "text"}
              autoComplete="off"
              spellCheck={false}
              required={variable.required}
              value={variables[variable.name] ?? ""}
              onChange={(event) =>
                setVariables((previous) => ({ ...previous, [variable.name]: event.target.value }))
              }
            />
          </label>
        ))}
        {chosen && chosen.users.length > 0 && (
          <label>
            As
            <select value={user} onChange={(event) => setUser(event.target.value)}>
              <option value="">{chosen.user ?? "root"}</option>
              {chosen.users.map((candidate) => (
                <option key={candidate} value={candidate}>
                  {candidate}
                </option>
              ))}
            </select>
          </label>
        )}
        <StartFields start={start} timeout={chosen?.timeout_s ?? 300} verb="Run" onClose={onClose} />
      </form>
    </Dialog>
  );
}

/** The declared variables that were filled in. An empty field is a variable that is not given. */
function given(
  declared: Schemas["ScriptVariable"][],
  values: Record<string, string>,
): Record<string, string> {
  const filled = declared.flatMap(({ name }) => (values[name] ? [[name, values[name]] as const] : []));
  return Object.fromEntries(filled);
}
