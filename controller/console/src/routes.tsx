// Every page has a real URL: this is the list of them.

import { createRootRoute, createRoute, createRouter, redirect } from "@tanstack/react-router";
import { FilesPage } from "./host/files";
import { LogPage } from "./host/log";
import { SitePage } from "./host/site";
import { SitesPage } from "./host/sites";
import { UnitPage } from "./host/unit";
import { UnitsPage } from "./host/units";
import { isObject, type Json } from "./kind/schema";
import { AuditPage } from "./pages/audit";
import { GroupsPage } from "./pages/groups";
import { HostOverview, HostPage } from "./pages/host";
import { HostsPage } from "./pages/hosts";
import { InventoryPage } from "./pages/inventory";
import { KindPage } from "./pages/kind";
import { KindsPage } from "./pages/kinds";
import { LoginPage } from "./pages/login";
import { NotFoundPage } from "./pages/not_found";
import { OperationPage } from "./pages/operation";
import { OperationsPage } from "./pages/operations";
import { ScriptPage } from "./pages/script";
import { ScriptsPage } from "./pages/scripts";
import type { Place } from "./shell/places";
import { Shell } from "./shell/shell";

const text = (value: unknown): string | undefined =>
  typeof value === "string" && value !== "" ? value : undefined;

/** Keeps only the named texts of a query string. */
function texts<K extends string>(...keys: K[]) {
  return (search: Record<string, unknown>) => {
    const kept: { [P in K]?: string } = {};
    for (const key of keys) {
      const value = text(search[key]);
      if (value !== undefined) kept[key] = value;
    }
    return kept;
  };
}

/** Makes a page one of the places of the navigation, in the order of the list of routes. */
const place = (name: string, icon: string, key: string): { place: Place } => ({ place: { name, icon, key } });

const root = createRootRoute({ notFoundComponent: NotFoundPage });

const login = createRoute({
  getParentRoute: () => root,
  path: "/login",
  validateSearch: texts("next"),
  component: LoginPage,
});

const shell = createRoute({ getParentRoute: () => root, id: "shell", component: Shell });

const index = createRoute({
  getParentRoute: () => shell,
  path: "/",
  beforeLoad: () => {
    throw redirect({ to: "/hosts" });
  },
});
const hosts = createRoute({
  getParentRoute: () => shell,
  path: "/hosts",
  staticData: place("Hosts", "▤", "h"),
  validateSearch: texts("search", "status", "type", "tag", "sort", "enrolment"),
  component: HostsPage,
});
const host = createRoute({ getParentRoute: () => shell, path: "/hosts/$name", component: HostPage });
const hostOverview = createRoute({ getParentRoute: () => host, path: "/", component: HostOverview });
const hostUnits = createRoute({
  getParentRoute: () => host,
  path: "/units",
  validateSearch: texts("search", "type", "state"),
  component: UnitsPage,
});
const hostUnit = createRoute({ getParentRoute: () => host, path: "/units/$unit", component: UnitPage });
const hostLog = createRoute({
  getParentRoute: () => host,
  path: "/log",
  validateSearch: texts("unit", "since", "priority", "grep", "follow"),
  component: LogPage,
});
const hostFiles = createRoute({
  getParentRoute: () => host,
  path: "/files",
  validateSearch: texts("path", "file", "hidden", "after"),
  component: FilesPage,
});
const hostSites = createRoute({
  getParentRoute: () => host,
  path: "/sites",
  validateSearch: texts("search"),
  component: SitesPage,
});
const hostSite = createRoute({ getParentRoute: () => host, path: "/sites/$site", component: SitePage });
const groups = createRoute({
  getParentRoute: () => shell,
  path: "/groups",
  staticData: place("Groups", "▦", "g"),
  component: GroupsPage,
});
const scripts = createRoute({
  getParentRoute: () => shell,
  path: "/scripts",
  staticData: place("Scripts", "≡", "s"),
  validateSearch: texts("search"),
  component: ScriptsPage,
});
const script = createRoute({ getParentRoute: () => shell, path: "/scripts/$name", component: ScriptPage });
const operations = createRoute({
  getParentRoute: () => shell,
  path: "/operations",
  staticData: place("Operations", "▷", "o"),
  validateSearch: texts("status", "kind", "subject", "host"),
  component: OperationsPage,
});
const operation = createRoute({
  getParentRoute: () => shell,
  path: "/operations/$id",
  validateSearch: texts("run", "state"),
  component: OperationPage,
});
const kinds = createRoute({
  getParentRoute: () => shell,
  path: "/kinds",
  staticData: place("Kinds", "◈", "k"),
  validateSearch: texts("search"),
  component: KindsPage,
});
const kind = createRoute({
  getParentRoute: () => shell,
  path: "/kinds/$kind",
  validateSearch: (search: Record<string, unknown>): { on?: string; params?: Json } => ({
    ...texts("on")(search),
    ...(isObject(search.params) ? { params: search.params } : {}),
  }),
  component: KindPage,
});
const inventory = createRoute({
  getParentRoute: () => shell,
  path: "/inventory",
  staticData: place("Inventory", "◇", "i"),
  component: InventoryPage,
});
const audit = createRoute({
  getParentRoute: () => shell,
  path: "/audit",
  staticData: place("Audit", "✎", "a"),
  validateSearch: texts("action", "actor", "subject"),
  component: AuditPage,
});

export const router = createRouter({
  routeTree: root.addChildren([
    login,
    shell.addChildren([
      index,
      hosts,
      host.addChildren([hostOverview, hostUnits, hostUnit, hostLog, hostFiles, hostSites, hostSite]),
      groups,
      scripts,
      script,
      operations,
      operation,
      kinds,
      kind,
      inventory,
      audit,
    ]),
  ]),
  defaultPreload: false,
  scrollRestoration: true,
});

declare module "@tanstack/react-router" {
  interface Register {
    router: typeof router;
  }
}
