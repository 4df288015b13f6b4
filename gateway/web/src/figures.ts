// Figures of a call.

/** Sums over all received streams. */
export interface Figures {
  received: number;
  lost: number;
  /** Milliseconds without audio that was received in time. */
  gapMs: number;
  frozenMs: number;
}

export const NONE: Figures = { received: 0, lost: 0, gapMs: 0, frozenMs: 0 };

/** The media of a call, by either transport. */
export interface CallMedia {
  readonly state: string;
  figures(): Promise<Figures & { roundTripMs?: number }>;
  close(): void;
}
