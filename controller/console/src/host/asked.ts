// What the pages of a host ask it. This is where kinds are known by their names; everything else is made from schemas.

import { useEffect, useRef } from "react";
import { type Asking, useAnswer } from "../api/answer";
import type { Schemas } from "../api/client";
import { useHost } from "../api/queries";
import type { Json } from "../kind/schema";

/** The kinds that these pages are about. */
export const KIND = {
  units: "units",
  unitShow: "unit-show",
  unitLog: "unit-log",
  unit: "unit",
  unitFile: "unit-file",
  fileList: "file-list",
  fileStat: "file-stat",
  fileRead: "file-read",
  sites: "sites",
  certificates: "certificates",
  siteErrors: "site-errors",
  site: "site",
} as const;

const SEQUENCES: string[] = [KIND.unitLog, KIND.fileRead, KIND.siteErrors];

/** Asks one host. One that comes back is asked again by itself. */
export function useHostAnswer(
  host: string,
  kind: string,
  params: Json | undefined,
  follow: "follow" | "once" = "once",
): Asking {
  const request: Schemas["QueryCreate"] | undefined = params && {
    kind,
    on: host,
    params: params as NonNullable<Schemas["QueryCreate"]["params"]>,
    ...(follow === "follow" ? { follow: true } : {}),
  };
  const asking = useAnswer(request, SEQUENCES.includes(kind) ? "entries" : "table");
  const status = useHost(host).data?.status;
  const was = useRef(status);
  const state = asking.answer.hosts.get(host)?.state;
  const { again } = asking;
  useEffect(() => {
    const returned = status === "online" && was.current === "offline";
    was.current = status;
    if (returned && (state === "offline" || state === "failed")) again();
  }, [status, state, again]);
  return asking;
}

/** A text of an item; empty where it has none. Items come from hosts: nothing is taken for granted. */
export const textOf = (item: Json, name: string): string => {
  const value = item[name];
  return typeof value === "string" ? value : "";
};

export const numberOf = (item: Json, name: string): number | undefined => {
  const value = item[name];
  return typeof value === "number" && Number.isFinite(value) ? value : undefined;
};

export const textsOf = (item: Json, name: string): string[] => {
  const value = item[name];
  return Array.isArray(value) ? value.filter((each) => typeof each === "string") : [];
};

/** A time of an item, as the page takes times; nothing where it is none. */
export const timeIn = (item: Json, name: string): string | undefined => {
  const date = new Date(numberOf(item, name) ?? Number.NaN);
  return Number.isNaN(date.getTime()) ? undefined : date.toISOString();
};
