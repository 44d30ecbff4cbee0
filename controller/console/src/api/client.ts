// The one way to the API: a client generated from openapi.json, and one error type.
//
// The login is a cookie that scripts cannot read. Writes carry a header that another site's form cannot send.

import createClient, { type Middleware } from "openapi-fetch";
import { v7 as uuidv7 } from "uuid";
import type { components, paths } from "./generated";

export type Schemas = components["schemas"];

/** What the controller refused, in its own words. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly details: Record<string, unknown> = {},
  ) {
    super(message);
    this.name = "ApiError";
  }
}

/** Which field of the request an error is about, where the controller says so. */
export const faultyField = (error: unknown): string | undefined =>
  error instanceof ApiError && typeof error.details.field === "string" ? error.details.field : undefined;

const mark: Middleware = {
  onRequest({ request }) {
    request.headers.set("X-Fleetward-Console", "1");
    return request;
  },
};

export const api = createClient<paths>({ baseUrl: "/", credentials: "same-origin" });
api.use(mark);

/** The data of an answer, or an `ApiError`. A request that never got an answer rejects with the browser's own error. */
export async function take<T>(
  answer: Promise<{ data?: T; error?: unknown; response: Response }>,
): Promise<T> {
  const { data, error, response } = await answer;
  if (response.ok) return data as T;
  const body = (typeof error === "object" && error !== null ? error : {}) as Partial<Schemas["ErrorBody"]>;
  throw new ApiError(
    response.status,
    body.code ?? "UNKNOWN",
    body.error ?? `the controller answered ${response.status} without saying why`,
    body.details ?? {},
  );
}

/** The id of a new operation: whoever asks makes it. */
export const operationId = (): string => uuidv7();

/** A key under which a write that is sent twice is carried out once. */
export const idempotencyKey = (): string => crypto.randomUUID();
