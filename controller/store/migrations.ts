// The database's versions: each entry takes it one further. An entry that was released is never edited.

export const migrations: readonly string[] = [
  `
  create table meta (key text primary key, value blob not null) strict, without rowid;

  create table hosts (
    id text primary key,
    name text not null unique,
    link_key blob not null unique,
    hostname text not null,
    instance text not null,
    boot_id text not null,
    agent_version text not null,
    joined_at integer not null,
    online integer not null default 0,
    session text not null default '',
    changed_at integer not null,
    last_seen_at integer not null,
    clock_offset_ms real,
    generation integer not null default 0,
    series integer not null default 0,
    batches integer not null default 0,
    gaps integer not null default 0,
    last_batch_at integer
  ) strict, without rowid;

  create table outboxes (
    host text not null references hosts (id),
    instance text not null,
    records integer not null default 0,
    samples integer not null default 0,
    used_at integer not null,
    primary key (host, instance)
  ) strict, without rowid;

  create table join_tokens (
    id text primary key,
    secret_hash blob not null,
    created_at integer not null,
    expires_at integer not null,
    uses integer not null
  ) strict, without rowid;

  create table join_token_uses (
    token text not null references join_tokens (id),
    host text not null references hosts (id),
    at integer not null,
    primary key (token, host)
  ) strict, without rowid;

  create table api_tokens (
    id text primary key,
    hash blob not null,
    scope text not null,
    label text not null,
    created_at integer not null,
    expires_at integer
  ) strict, without rowid;

  create table commands (
    number integer primary key autoincrement,
    id text not null unique,
    host text not null references hosts (id),
    kind text not null,
    mode text not null,
    document blob not null,
    digest blob not null,
    signatures text not null,
    created_at integer not null,
    not_after integer,
    generation integer,
    state text not null,
    open integer not null,
    updated_at integer not null,
    cancel_requested_at integer,
    runs integer not null,
    result text,
    history text not null
  ) strict;
  create index commands_open on commands (host, number) where open = 1;
  create index commands_of_host on commands (host, number);
  create index commands_by_state on commands (state, number);
  create index commands_waiting on commands (not_after) where state = 'waiting' and not_after is not null;

  create table events (
    number integer primary key autoincrement,
    at integer not null,
    topic text not null,
    id text not null,
    event text not null
  ) strict;

  create table dictionaries (
    number integer primary key autoincrement,
    host text not null references hosts (id),
    digest blob not null,
    frame blob not null,
    used_minute integer not null,
    unique (host, digest)
  ) strict;

  create table telemetry (
    host text not null references hosts (id),
    minute integer not null,
    data blob not null,
    primary key (host, minute)
  ) strict;
  create index telemetry_by_minute on telemetry (minute);
  `,
  `
  alter table hosts add column standing text not null default 'approved';
  alter table hosts add column standing_at integer not null default 0;
  alter table hosts add column takes_over text references hosts (id);
  alter table hosts add column replaced_by text references hosts (id);
  update hosts set standing_at = joined_at;
  create index hosts_replaced on hosts (replaced_by) where replaced_by is not null;

  alter table outboxes add column restored integer not null default 0;

  alter table join_tokens add column approve text not null default 'auto';
  alter table join_tokens add column for_host text references hosts (id);
  alter table join_tokens add column cidr text;
  alter table join_tokens add column revoked_at integer;

  alter table api_tokens add column last_used_at integer;
  alter table api_tokens add column revoked_at integer;

  create table audit (
    number integer primary key autoincrement,
    at integer not null,
    token text not null,
    token_name text not null,
    address text not null,
    method text not null,
    route text not null,
    object text,
    status integer not null,
    code text
  ) strict;
  create index audit_by_time on audit (at);
  `,
  `
  alter table commands add column signatures_wanted integer not null default 0;
  alter table commands add column cancel_answer text;
  alter table commands add column output_bytes integer not null default 0;
  update commands set signatures = (
    select json_group_array(json_object('text', value, 'fingerprint', 'unknown-' || key, 'addedAt', created_at))
    from json_each(signatures)
  ) where signatures <> '[]';
  create index commands_ended on commands (updated_at) where open = 0;

  create table outputs (
    command text not null references commands (id),
    offset integer not null,
    stream text not null,
    data blob not null,
    primary key (command, offset)
  ) strict;
  `,
  `
  alter table hosts add column authority text not null default '';
  alter table hosts add column identity text;
  alter table hosts add column identity_digest text;
  alter table hosts add column identity_since integer;
  alter table hosts add column attestation text;
  alter table hosts add column audit_fault text;
  alter table hosts add column audit_fault_at integer;

  create table audit_heads (
    host text not null references hosts (id),
    attestation text not null,
    seq integer not null,
    hash text not null,
    signature text not null,
    countersignature text not null,
    at integer not null,
    primary key (host, attestation, seq)
  ) strict, without rowid;

  create table instances (
    host text not null references hosts (id),
    instance text not null,
    boot_id text not null,
    address text not null,
    verdict text not null,
    seen_at integer not null,
    primary key (host, instance, boot_id)
  ) strict;
  `,
  `
  create table audit_lines (
    seq integer primary key,
    at integer not null,
    text text not null,
    hash text not null
  ) strict;

  create table audit_anchor (
    only integer primary key check (only = 1),
    seq integer not null,
    hash text not null
  ) strict;
  insert into audit_anchor (only, seq, hash)
    select 1, coalesce(max(number), 0), '0000000000000000000000000000000000000000000000000000000000000000' from audit;
  `,
  `
  create table alarms (
    host text not null references hosts (id),
    code text not null,
    since integer not null,
    count integer not null,
    primary key (host, code)
  ) strict, without rowid;
  `,
  `
  alter table commands add column held_bytes integer not null default 0;
  update commands set held_bytes = length(document) + length(signatures) + coalesce(length(result), 0)
    + coalesce((select sum(length(data)) from outputs where command = commands.id), 0) where open = 0;
  create index commands_held on commands (updated_at) where open = 0 and held_bytes > 0;
  create index commands_held_of_host on commands (host, updated_at) where open = 0 and held_bytes > 0;

  create table held (
    host text primary key,
    commands integer not null,
    bytes integer not null
  ) strict, without rowid;
  insert into held select host, count(*), sum(held_bytes) from commands where open = 0 group by host;
  create trigger held_changed after update of open, held_bytes, host on commands begin
    update held set commands = commands - 1, bytes = bytes - old.held_bytes where old.open = 0 and host = old.host;
    insert into held select new.host, 1, new.held_bytes where new.open = 0
      on conflict do update set commands = commands + 1, bytes = bytes + excluded.bytes;
  end;
  create trigger held_forgotten after delete on commands when old.open = 0 begin
    update held set commands = commands - 1, bytes = bytes - old.held_bytes where host = old.host;
  end;

  create index commands_waited on commands (created_at) where state = 'waiting';
  `,
  `
  create table image_mirrors (
    number integer primary key autoincrement,
    root text not null,
    url text not null,
    layout text not null,
    first integer not null,
    added_at integer not null,
    unique (root, url)
  ) strict;
  `,
  "alter table commands add column pause text;",
  "alter table commands add column set_back integer not null default 0;",
];
