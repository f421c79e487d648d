/** One finished request to the API server, for the rest_client_* metrics. */
export interface ApiRequest {
  readonly verb: string;
  readonly method: string;
  readonly host: string;
  /** HTTP status, or `<error>` when none came (client-go's word). */
  readonly code: string;
  /** From sending to the answer's headers. */
  readonly seconds: number;
}
