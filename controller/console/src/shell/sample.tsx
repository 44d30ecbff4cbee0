// A page to put things on, for tests: what they link to is not there.

import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { createMemoryHistory, createRootRoute, createRouter, RouterProvider } from "@tanstack/react-router";
import { act, type ReactNode } from "react";
import { createRoot } from "react-dom/client";
import type { Schemas } from "../api/client";

export type Page = { element: HTMLElement; text: () => string; close: () => void };

/** Shows something on a page of its own. `kinds` is what the controller says that there is. */
export async function show(children: ReactNode, kinds: Schemas["Kind"][] = []): Promise<Page> {
  (globalThis as { IS_REACT_ACT_ENVIRONMENT?: boolean }).IS_REACT_ACT_ENVIRONMENT = true;
  window.scrollTo = () => {}; // jsdom has no layout to scroll
  const element = document.createElement("div");
  document.body.append(element);
  const client = new QueryClient({
    defaultOptions: { queries: { retry: false, staleTime: Number.POSITIVE_INFINITY } },
  });
  client.setQueryData(["kinds"], kinds);
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
