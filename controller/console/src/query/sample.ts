// Answers of hosts, for tests.

import { Answer, type Asking } from "../api/answer";
import type { Schemas } from "../api/client";
import type { Json } from "../kind/schema";

/** What `web-1` told, and how far it came with it. */
export function answered(
  items: [key: string, item: Json][],
  {
    shows = "table",
    state,
    detail,
    ...more
  }: Partial<Asking> & {
    shows?: Schemas["Shows"];
    state?: Schemas["QueryState"];
    detail?: string;
  } = {},
): Asking {
  const answer = new Answer(shows);
  const take = (name: string, data: object) => answer.take({ name, data: JSON.stringify(data) });
  for (const [key, item] of items) take("item", { host: "web-1", key, item });
  if (state) take("host", { host: "web-1", state, detail });
  return { answer, phase: "live", error: undefined, version: 1, again: () => {}, ...more };
}
