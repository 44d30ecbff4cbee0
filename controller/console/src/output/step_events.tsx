// The steps of a typed action as they come: a shape and words, never colour alone.

import type { Schemas } from "../api/client";
import type { ToldStep } from "./log";

const STATES: Record<Schemas["StepState"], [tone: string, shape: string, word: string]> = {
  began: ["busy", "◐", "under way"],
  going: ["busy", "◐", "under way"],
  done: ["good", "✓", "done"],
  unchanged: ["idle", "=", "nothing to do"],
  failed: ["bad", "✕", "failed"],
  undone: ["warn", "↶", "put back"],
};

export function StepEvents({ steps }: { steps: ToldStep[] }) {
  if (steps.length === 0) return null;
  return (
    <ol className="step-events" aria-label="Steps">
      {steps.map(({ step, state, percent, words }) => {
        const [tone, shape, word] = STATES[state] ?? ["idle", "○", state];
        return (
          <li key={step} className={tone}>
            <span aria-hidden="true" className="shape">
              {shape}
            </span>
            <span className="strong">{step}</span>
            <span className="visually-hidden">{word}</span>
            <span className="words">{words}</span>
            {percent != null && (state === "began" || state === "going") && (
              <progress max={100} value={percent} aria-label={`${step}: ${percent} %`} />
            )}
          </li>
        );
      })}
    </ol>
  );
}
