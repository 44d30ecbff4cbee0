// A page to put things on, for tests: what they link to is not there.

import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { createMemoryHistory, createRootRoute, createRouter, RouterProvider } from "@tanstack/react-router";
import { act, type ReactNode } from "react";
import { createRoot } from "react-dom/client";
import type { Schemas } from "../api/client";

export type Page = { element: HTMLElement; text: () => string; close: () => void };

/** Everything that there is to be allowed. */
const ALL = [
  "read",
  "read_output",
  "run",
  "override",
  "manage_hosts",
  "manage_repo",
  "manage_users",
  "audit",
];

/** Shows something on a page of its own. `kinds` is what the controller says that there is, `permissions` what it allows. */
export async function show(
  children: ReactNode,
  kinds: Schemas["Kind"][] = [],
  { permissions = ALL }: { permissions?: string[] } = {},
): Promise<Page> {
  (globalThis as { IS_REACT_ACT_ENVIRONMENT?: boolean }).IS_REACT_ACT_ENVIRONMENT = true;
  window.scrollTo = () => {}; // jsdom has no layout to scroll
  // Nor has it a layer on top of the page.
  HTMLDialogElement.prototype.showModal ??= function (this: HTMLDialogElement) {
    this.open = true;
  };
  HTMLDialogElement.prototype.close ??= function (this: HTMLDialogElement) {
    this.open = false;
  };
  const element = document.createElement("div");
  document.body.append(element);
  const client = new QueryClient({
    defaultOptions: { queries: { retry: false, staleTime: Number.POSITIVE_INFINITY } },
  });
  client.setQueryData(["kinds"], kinds);
  client.setQueryData(["me"], { username: "ada", grants: [], must_change_password: false, permissions });
  client.setQueryData(["host", "web-1"], { name: "web-1", enrolment: "enrolled", status: "online" });
  const router = createRouter({
    routeTree: createRootRoute({ component: () => children }),
    history: createMemoryHistory({ initialEntries: ["/"] }),
  });
  await router.load();
  const root = createRoot(element);
  await act(async () =>
    root.render(
      <QueryClientProvider client={client}>
        <RouterProvider router={router as never} />
      </QueryClientProvider>,
    ),
  );
  return {
    element,
    text: () => (element.textContent ?? "").replace(/\s+/g, " "),
    close: () => {
      act(() => root.unmount());
      element.remove();
    },
  };
}
