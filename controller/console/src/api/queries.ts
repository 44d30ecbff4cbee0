// What the pages ask for, by noun. Paths of the API appear here, in `events.ts` and in `answer.ts`, nowhere else.

import {
  keepPreviousData,
  useInfiniteQuery,
  useMutation,
  useQuery,
  useQueryClient,
} from "@tanstack/react-query";
import { api, idempotencyKey, type Schemas, take } from "./client";
import type { operations } from "./generated";

type QueryOf<K extends keyof operations> = NonNullable<operations[K]["parameters"]["query"]>;

// -- who am I

export const meKey = ["me"] as const;

/** Whether the caller has a permission, as far as it is known; the controller is who decides. */
export function useMay(): (permission: string) => boolean {
  const permissions = useMe().data?.permissions ?? [];
  return (permission) => permissions.includes(permission);
}

export function useMe() {
  return useQuery({ queryKey: meKey, queryFn: () => take(api.GET("/api/v1/auth/me")), staleTime: 60_000 });
}

export function useLogin() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (body: Schemas["LoginRequest"]) => take(api.POST("/api/v1/auth/login", { body })),
    onSuccess: (answer) => {
      client.clear();
      client.setQueryData(meKey, answer.user);
    },
  });
}

export function useLogout() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: () => take(api.POST("/api/v1/auth/logout")),
    onSettled: () => client.clear(),
  });
}

export function usePasswordChange() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (body: Schemas["PasswordChange"]) => take(api.POST("/api/v1/auth/password", { body })),
    onSuccess: () => client.invalidateQueries({ queryKey: meKey }),
  });
}

// -- hosts

export function useHosts(query: Omit<QueryOf<"hostList">, "cursor">) {
  return useInfiniteQuery({
    queryKey: ["hosts", query],
    queryFn: ({ pageParam }) =>
      take(
        api.GET("/api/v1/hosts", {
          params: { query: { ...query, ...(pageParam ? { cursor: pageParam } : {}) } },
        }),
      ),
    initialPageParam: "",
    getNextPageParam: (page) => page.next_cursor ?? undefined,
    placeholderData: keepPreviousData,
  });
}

export function useHost(name: string) {
  return useQuery({
    queryKey: ["host", name],
    queryFn: () => take(api.GET("/api/v1/hosts/{name}", { params: { path: { name } } })),
  });
}

export function useHostCreate() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (body: Schemas["HostCreate"]) =>
      take(api.POST("/api/v1/hosts", { body, headers: { "Idempotency-Key": idempotencyKey() } })),
    onSuccess: () => client.invalidateQueries({ queryKey: ["hosts"] }),
  });
}

export function useHostAct(name: string) {
  const client = useQueryClient();
  const refresh = () => {
    void client.invalidateQueries({ queryKey: ["hosts"] });
    void client.invalidateQueries({ queryKey: ["host", name] });
  };
  const params = { path: { name } };
  return {
    token: useMutation({
      mutationFn: () => take(api.POST("/api/v1/hosts/{name}/token", { params, body: {} })),
      onSuccess: refresh,
    }),
    approve: useMutation({
      mutationFn: () => take(api.POST("/api/v1/hosts/{name}/approve", { params })),
      onSuccess: refresh,
    }),
    revoke: useMutation({
      mutationFn: () => take(api.POST("/api/v1/hosts/{name}/revoke", { params })),
      onSuccess: refresh,
    }),
    retire: useMutation({
      mutationFn: () => take(api.POST("/api/v1/hosts/{name}/retire", { params })),
      onSuccess: refresh,
    }),
  };
}

// -- groups

export function useGroups() {
  return useQuery({
    queryKey: ["groups"],
    queryFn: () => take(api.GET("/api/v1/groups", { params: { query: { limit: 1000 } } })),
  });
}

export function useGroupAct() {
  const client = useQueryClient();
  const onSuccess = () => client.invalidateQueries({ queryKey: ["groups"] });
  return {
    set: useMutation({
      mutationFn: ({ name, ...body }: Schemas["GroupUpdate"] & { name: string }) =>
        take(api.PUT("/api/v1/groups/{name}", { params: { path: { name } }, body })),
      onSuccess,
    }),
    remove: useMutation({
      mutationFn: (name: string) => take(api.DELETE("/api/v1/groups/{name}", { params: { path: { name } } })),
      onSuccess,
    }),
  };
}

// -- scripts

export function useScripts() {
  return useQuery({
    queryKey: ["scripts"],
    queryFn: async () => {
      const scripts: Schemas["Script"][] = [];
      let cursor: string | undefined;
      do {
        const page = await take(
          api.GET("/api/v1/scripts", { params: { query: { limit: 1000, ...(cursor ? { cursor } : {}) } } }),
        );
        scripts.push(...page.items);
        cursor = page.next_cursor ?? undefined;
      } while (cursor);
      return scripts;
    },
  });
}

export function useScript(name: string) {
  return useQuery({
    queryKey: ["script", name],
    queryFn: () => take(api.GET("/api/v1/scripts/{name}", { params: { path: { name } } })),
  });
}

// -- the inventory repository

export function useRepo() {
  return useQuery({ queryKey: ["repo"], queryFn: () => take(api.GET("/api/v1/repo")) });
}

export function useSyncs() {
  return useQuery({
    queryKey: ["repo", "syncs"],
    queryFn: () => take(api.GET("/api/v1/repo/syncs", { params: { query: { limit: 20 } } })),
  });
}

export function useSync() {
  const client = useQueryClient();
  return useMutation({
    /** `accept` is the commit that waits, once a person has seen what it takes away. */
    mutationFn: (accept: string | null) => take(api.POST("/api/v1/repo/sync", { body: { accept } })),
    onSettled: () => {
      for (const key of ["repo", "scripts", "hosts"]) void client.invalidateQueries({ queryKey: [key] });
    },
  });
}

// -- kinds

/** What can be done to hosts and asked of them. It changes with the controller's version alone. */
export function useKinds() {
  return useQuery({
    queryKey: ["kinds"],
    queryFn: async () => (await take(api.GET("/api/v1/kinds"))).items,
    staleTime: Number.POSITIVE_INFINITY,
  });
}

/** A step of an operation, with parameters that only the schema of its kind knows. */
export const step = (kind: string, params: Record<string, unknown>): Schemas["StepCall"] => ({
  kind,
  params: params as NonNullable<Schemas["StepCall"]["params"]>,
});

// -- operations

/** The hosts, and whether the steps take what they would be given: the same check as for the operation. */
export function useTargetPreview(body: Schemas["TargetPreviewRequest"]) {
  return useQuery({
    queryKey: ["targets", body],
    queryFn: () => take(api.POST("/api/v1/targets/preview", { body })),
    enabled: body.on.trim() !== "",
    placeholderData: keepPreviousData,
    retry: false,
  });
}

export function useOperationCreate() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (body: Schemas["OperationCreate"]) => take(api.POST("/api/v1/operations", { body })),
    onSuccess: () => client.invalidateQueries({ queryKey: ["operations"] }),
  });
}

export function useOperations(query: Omit<QueryOf<"operationList">, "cursor">) {
  return useInfiniteQuery({
    queryKey: ["operations", query],
    queryFn: ({ pageParam }) =>
      take(
        api.GET("/api/v1/operations", {
          params: { query: { limit: 50, ...query, ...(pageParam ? { cursor: pageParam } : {}) } },
        }),
      ),
    initialPageParam: "",
    getNextPageParam: (page) => page.next_cursor ?? undefined,
    placeholderData: keepPreviousData,
  });
}

/** One run as it is now, with its report; none without an id. */
export function useRun(id: string | undefined) {
  return useQuery({
    queryKey: ["run", id],
    queryFn: () => take(api.GET("/api/v1/runs/{id}", { params: { path: { id: id ?? "" } } })),
    enabled: id !== undefined,
  });
}

export function useOperationStop(id: string) {
  return useMutation({
    mutationFn: () => take(api.POST("/api/v1/operations/{id}/stop", { params: { path: { id } } })),
  });
}

// -- audit

export function useAudit(query: Omit<QueryOf<"auditList">, "cursor">) {
  return useInfiniteQuery({
    queryKey: ["audit", query],
    queryFn: ({ pageParam }) =>
      take(
        api.GET("/api/v1/audit", {
          params: { query: { ...query, ...(pageParam ? { cursor: pageParam } : {}) } },
        }),
      ),
    initialPageParam: "",
    getNextPageParam: (page) => page.next_cursor ?? undefined,
    placeholderData: keepPreviousData,
  });
}
