// Where the navigation and the keyboard go: every route that says that it is a place.

import { type LinkProps, useRouter } from "@tanstack/react-router";
import { useMemo } from "react";

/** What a route says of itself to be a place. */
export interface Place {
  name: string;
  icon: string;
  /** The letter after `g`. */
  key: string;
}

declare module "@tanstack/react-router" {
  interface StaticDataRouteOption {
    place?: Place;
  }
}

/** The places, in the order of the list of routes. */
export function usePlaces() {
  const { routesById } = useRouter();
  return useMemo(
    () =>
      Object.values(routesById).flatMap((route) => {
        const { place } = route.options.staticData ?? {};
        return place ? [{ ...place, to: route.fullPath as NonNullable<LinkProps["to"]> }] : [];
      }),
    [routesById],
  );
}
