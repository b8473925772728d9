// What both ends of a TLS connection agree on. Apart from messages.ts, so that a worker which only fetches loads no schemas.

/** The TLS server name every controller's certificate carries, whatever its address. */
export const tlsServerName = "controller.bedplate.internal";
/** The TLS exporter label (RFC 9266) and length that bind a proof to its connection. */
export const exporter = { label: "EXPORTER-Channel-Binding", bytes: 32 } as const;
