//! The options of Redis that this server does not use.
//!
//! **A file written for Redis must start this server, or be refused for a reason.** An option that only
//! tunes something is accepted with every value that Redis accepts, because there is nothing to tune (`no
//! effect here`). If the operator may count on it all the same, a warning says at the start why it is in vain
//! ([`InVain`]). An option that asks for a feature is accepted only with values that do not ask for it
//! ([`Only`]): a server that accepted `tls-port 6380` and then did not listen there would lie. A test in start.rs
//! starts with the redis.conf that Redis comes with.
//!
//! **How Redis does it**: it uses them all, and refuses names that it does not know.

use super::options::{Accepts, Accepts::*, BIG, Change, Change::*, INT, Row, row};

const NO: &[&str] = &["no"];
const ZERO: &[&str] = &["0"];
const PROTECTED: &Accepts = &OneOf(&["no", "yes", "local"]);
const TLS: &str = "this server has no TLS";
pub const NO_EFFECT: &str = "no effect here";

/// Options that are fixed here, and those whose default is several words.
#[rustfmt::skip]
pub static ROWS: &[Row] = &[
    row("tcp-keepalive", "0", Number(0, INT), Fixed, "std cannot set it"),
    row("tcp-backlog", "128", Number(0, INT), Fixed, "std sets it"),
    row("proc-title-template", "{title} {listen-addr} {server-mode}", Text, Live, NO_EFFECT),
    row("oom-score-adj-values", "0 200 800", Words, Live, NO_EFFECT),
];

/// All others: what they accept, when they may change, and their names, each with its default.
#[rustfmt::skip]
pub static GROUPS: &[(Accepts, Change, &str)] = &[
    // They ask for a feature that is not here.
    (Only(NO, "this server writes no timestamps into its log"), Live, "aof-timestamp-enabled=no"),
    (Only(NO, "this server deletes the files that a rewrite has replaced"), Live, "aof-disable-auto-gc=no"),
    (Only(ZERO, TLS), Live, "tls-port=0"),
    (Only(NO, TLS), Live, "tls-replication=no tls-cluster=no"),
    (Only(NO, "this server is not a cluster node"), AtStart, "cluster-enabled=no"),
    (Refused("this server has no modules"), AtStart, "loadmodule="),
    (Refused("this server is not a sentinel"), AtStart, "sentinel="),
    // They are in vain, and it is said.
    (InVain(&Number(1, 128), "every client has a thread of its own"), AtStart, "io-threads=1"),
    (InVain(&YesNo, "tables and values give memory back as they shrink"), Live, "activedefrag=no"),
    (InVain(PROTECTED, "there are no modules"), AtStart, "enable-module-command=no"),
    (InVain(PROTECTED, "dir and dbfilename are always protected"), AtStart, "enable-protected-configs=no"),
    (InVain(&OneOf(&["no", "yes", "relative", "absolute"]), "this server does not set its OOM score"), Live, "\
        oom-score-adj=no"),
    (InVain(&Words, "std catches no signals; they end the process, and nothing that was acknowledged is lost"), Live, "\
        shutdown-on-sigint=default shutdown-on-sigterm=default"),
    (InVain(&Number(0, u32::MAX as i64), "std cannot mark a socket"), AtStart, "socket-mark-id=0"),
    (InVain(&Text, "std cannot choose the CPUs of a thread"), AtStart, "\
        server_cpulist= bio_cpulist= aof_rewrite_cpulist= bgsave_cpulist="),
    // They tune something that is not here.
    (YesNo, Live, "\
        aof-rewrite-incremental-fsync=yes no-appendfsync-on-rewrite=no \
        rdb-del-sync-files=no \
        rdb-save-incremental-fsync=yes \
        replica-lazy-flush=no replica-announced=yes \
        repl-diskless-sync=yes repl-disable-tcp-nodelay=no crash-log-enabled=yes \
        crash-memcheck-enabled=yes lazyfree-lazy-eviction=no lazyfree-lazy-expire=no \
        lazyfree-lazy-server-del=no lazyfree-lazy-user-del=no lazyfree-lazy-user-flush=no \
        latency-tracking=yes activerehashing=yes dynamic-hz=yes jemalloc-bg-thread=yes \
        replica-ignore-disk-write-errors=no cluster-replica-no-failover=no \
        cluster-require-full-coverage=yes cluster-allow-replica-migration=yes \
        cluster-allow-pubsubshard-when-down=yes cluster-allow-reads-when-down=no \
        tls-prefer-server-ciphers=no tls-session-caching=yes"),
    (YesNo, AtStart, "\
        always-show-logo=no set-proc-title=yes io-threads-do-reads=no \
        disable-thp=yes"),
    (Text, Live, "\
        locale-collate= ignore-warnings= bind-source-addr= \
        cluster-announce-ip= cluster-announce-hostname= tls-protocols= tls-ciphers= \
        tls-ciphersuites= tls-cert-file= tls-key-file= tls-ca-cert-file= tls-key-file-pass= \
        tls-client-cert-file= tls-client-key-file= tls-client-key-file-pass= tls-dh-params-file= \
        tls-ca-cert-dir="),
    (Number(0, INT), Live, "\
        repl-diskless-sync-delay=5 \
        repl-diskless-sync-max-replicas=0 \
        list-compress-depth=0 hz=10 cluster-migration-barrier=1 cluster-replica-validity-factor=10 \
        tls-session-cache-size=20480 tls-session-cache-timeout=300"),
    (Number(0, BIG), Live, "\
        acllog-max-len=128 tracking-table-max-keys=1000000 \
        stream-node-max-entries=100 cluster-node-timeout=15000"),
    (OneOf(&["disabled", "on-empty-db", "swapdb"]), Live, "repl-diskless-load=disabled"),
    (Memory(1, BIG), Live, "active-defrag-ignore-bytes=104857600"),
    (Number(1, 10), Live, "active-expire-effort=1"),
    (OneOf(&["allchannels", "resetchannels"]), Live, "acl-pubsub-default=resetchannels"),
    (Text, AtStart, "aclfile="),
    (OneOf(&["no", "yes", "clients"]), Live, "sanitize-dump-payload=no"),
    (Memory(0, BIG), Live, "\
        hll-sparse-max-bytes=3000 stream-node-max-bytes=4096 cluster-link-sendbuf-limit=0"),
    (Number(1, 99), Live, "active-defrag-cycle-max=25 active-defrag-cycle-min=1"),
    (Number(1, BIG), Live, "active-defrag-max-scan-fields=1000"),
    (Number(0, 1000), Live, "active-defrag-threshold-lower=10 active-defrag-threshold-upper=100"),
    (Number(0, 65535), Live, "\
        cluster-announce-port=0 cluster-announce-bus-port=0 \
        cluster-announce-tls-port=0"),
    (OneOf(&["ignore", "panic", "panic-on-replicas"]), Live, "propagation-error-behavior=ignore"),
    (FileName, AtStart, "cluster-config-file=nodes.conf"),
    (Number(0, 65535), AtStart, "cluster-port=0"),
    (OneOf(&["ip", "hostname", "unknown-endpoint"]), Live, "cluster-preferred-endpoint-type=ip"),
    (OneOf(&["no", "yes", "optional"]), Live, "tls-auth-clients=yes"),
];

/// Other names of options, each with its usual name.
pub const ALIASES: &str = "\
    min-slaves-to-write=min-replicas-to-write slave-serve-stale-data=replica-serve-stale-data \
    slave-read-only=replica-read-only slave-priority=replica-priority \
    slave-lazy-flush=replica-lazy-flush slave-ignore-maxmemory=replica-ignore-maxmemory \
    min-slaves-max-lag=min-replicas-max-lag repl-ping-slave-period=repl-ping-replica-period \
    lua-time-limit=busy-reply-threshold list-max-ziplist-size=list-max-listpack-size \
    hash-max-ziplist-entries=hash-max-listpack-entries \
    hash-max-ziplist-value=hash-max-listpack-value \
    zset-max-ziplist-entries=zset-max-listpack-entries \
    zset-max-ziplist-value=zset-max-listpack-value slave-announce-ip=replica-announce-ip \
    slave-announce-port=replica-announce-port slaveof=replicaof \
    cluster-slave-validity-factor=cluster-replica-validity-factor \
    cluster-slave-no-failover=cluster-replica-no-failover";
