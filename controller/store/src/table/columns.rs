//! What may be asked for: the tables, their columns, and the SQL behind each name.

use crate::page::Direction;

/// A table of the API.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    /// `FROM …` and what always holds, up to an `AND` that more may follow.
    pub(super) from: &'static str,
    /// The column that the tenant filter is put on.
    pub(super) tenant: &'static str,
    /// The unique sort key that ends every order.
    pub(super) unique: &'static Column,
    pub(super) columns: &'static [Column],
    pub(super) default_sort: (&'static str, Direction),
}

/// A column of such a table.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// What is selected and compared with; may be NULL.
    pub(super) expression: &'static str,
    /// The same, never NULL, to sort by.
    pub(super) sortable: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Integer,
    Boolean,
    Time,
    /// JSON that is shown as it is; neither filtered nor sorted by.
    Json,
}

macro_rules! column {
    ($name:literal, Text, $expression:literal) => {
        Column {
            name: $name,
            kind: Kind::Text,
            expression: $expression,
            sortable: concat!("COALESCE(", $expression, ", '')"),
        }
    };
    ($name:literal, Json, $expression:literal) => {
        Column { name: $name, kind: Kind::Json, expression: $expression, sortable: "''" }
    };
    ($name:literal, $kind:ident, $expression:literal) => {
        Column {
            name: $name,
            kind: Kind::$kind,
            expression: $expression,
            sortable: concat!("COALESCE(", $expression, ", -1)"),
        }
    };
}

const HOST_ID: Column = column!("id", Text, "h.id");
const NAME: Column = column!("name", Text, "h.name");
const TYPE: Column = column!("type", Text, "h.type");
const PROVIDER: Column = column!("provider", Text, "h.provider");
const STATUS: Column = column!("status", Text, "h.status");
const LIFECYCLE: Column = column!("lifecycle", Text, "h.lifecycle");
const ENROLLED: Column =
    column!("enrolled", Boolean, "(CASE WHEN h.enrolment = 'enrolled' THEN 1 ELSE 0 END)");
const LATENCY: Column = column!("latency", Integer, "(h.rtt_us / 1000)");
const LATENCY_US: Column = column!("latency_us", Integer, "h.rtt_us");
const LAST_SEEN: Column = column!("last_seen", Time, "h.last_seen");
const AGENT_VERSION: Column = column!("agent_version", Text, "h.agent_version");
const TAGS: Column = column!("tags", Json, "h.tags");
const ADDRESS: Column = column!("address", Text, "h.address");

const HOSTS: &str = " FROM host h WHERE h.deleted_at IS NULL AND ";

const OPERATION_ID: Column = column!("id", Text, "o.id");
const OPERATION_COLUMNS: &[Column] = &[
    OPERATION_ID,
    column!("number", Integer, "o.number"),
    column!("scripts", Text, "o.summary"),
    column!("targets", Text, "o.targets"),
    column!("status", Text, "o.status"),
    column!("created", Time, "o.created_at"),
    column!("started", Time, "o.started_at"),
    column!("ended", Time, "o.ended_at"),
    column!("duration_ms", Integer, "(o.ended_at - o.started_at)"),
    column!("deadline", Time, "o.deadline"),
    column!("triggered_by", Text, "o.created_by_name"),
    column!("runs", Integer, "o.runs"),
    column!("success", Integer, "o.succeeded"),
    column!("failed", Integer, "o.failed"),
];

/// Every table of the API.
pub(super) const TABLES: &[Table] = &[
    Table {
        name: "tbl_links",
        from: HOSTS,
        tenant: "h.tenant_id",
        unique: &HOST_ID,
        columns: &[
            HOST_ID,
            NAME,
            STATUS,
            TYPE,
            PROVIDER,
            ENROLLED,
            column!("enrolment", Text, "h.enrolment"),
            column!("enrolment_required", Boolean, "h.enrolment_required"),
            column!("ssh", Text, "(h.login_user || '@' || h.address || ':' || CAST(h.port AS TEXT))"),
            LATENCY,
            LATENCY_US,
            LAST_SEEN,
            TAGS,
            ADDRESS,
            column!("client_id", Text, "h.client_id"),
            column!("source", Text, "h.source"),
            LIFECYCLE,
            column!("os", Text, "h.os"),
            AGENT_VERSION,
            column!("created", Time, "h.created_at"),
        ],
        default_sort: ("name", Direction::Ascending),
    },
    Table {
        name: "tbl_link_health",
        from: HOSTS,
        tenant: "h.tenant_id",
        unique: &HOST_ID,
        columns: &[
            HOST_ID,
            NAME,
            STATUS,
            LATENCY,
            LATENCY_US,
            LAST_SEEN,
            column!("connected", Time, "h.connected_at"),
            column!("clock_skew_ms", Integer, "h.clock_skew_ms"),
            AGENT_VERSION,
            ENROLLED,
            LIFECYCLE,
        ],
        default_sort: ("name", Direction::Ascending),
    },
    Table {
        name: "tbl_infrastructure",
        from: HOSTS,
        tenant: "h.tenant_id",
        unique: &HOST_ID,
        columns: &[
            HOST_ID,
            NAME,
            TYPE,
            PROVIDER,
            ADDRESS,
            column!("os", Text, "h.os"),
            column!("os_version", Text, "h.os_version"),
            column!("kernel", Text, "h.kernel"),
            column!("arch", Text, "h.arch"),
            column!("virtualisation", Text, "h.virtualisation"),
            column!("facts_at", Time, "h.facts_at"),
            column!("metadata", Json, "h.metadata"),
            STATUS,
            TAGS,
            LIFECYCLE,
        ],
        default_sort: ("name", Direction::Ascending),
    },
    Table {
        name: "tbl_operations",
        from: " FROM operation o WHERE o.status IN ('queued', 'running') AND ",
        tenant: "o.tenant_id",
        unique: &OPERATION_ID,
        columns: OPERATION_COLUMNS,
        default_sort: ("created", Direction::Descending),
    },
    Table {
        name: "tbl_operations_history",
        from: " FROM operation o WHERE o.status NOT IN ('queued', 'running') AND ",
        tenant: "o.tenant_id",
        unique: &OPERATION_ID,
        columns: OPERATION_COLUMNS,
        // P32: newest first by start.
        default_sort: ("started", Direction::Descending),
    },
    Table {
        name: "tbl_recent_activity",
        from: " FROM audit a WHERE ",
        tenant: "a.tenant_id",
        unique: &column!("number", Integer, "a.number"),
        columns: &[
            column!("number", Integer, "a.number"),
            column!("at", Time, "a.at"),
            column!("kind", Text, "a.kind"),
            column!("actor", Text, "a.actor"),
            column!("subject", Text, "a.subject"),
            column!("details", Json, "a.details"),
        ],
        default_sort: ("number", Direction::Descending),
    },
];
