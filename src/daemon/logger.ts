import { type DestinationStream, type Logger, pino } from 'pino';

/** One JSON object per line. Levels are words: 30 and 40 mean nothing to Loki, Cloud Logging or Datadog. */
export function jsonLogger(level: string, to: DestinationStream): Logger {
  const formatters = { level: (label: string) => ({ level: label }) };
  return pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime, formatters }, to);
}
