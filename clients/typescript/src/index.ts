// Types of requests and answers by `operationId`, as in the OpenAPI documents of both APIs.

import type { components as CommandComponents, operations as CommandOperations } from "./commands.ts";
import type { components as QueryComponents, operations as QueryOperations } from "./queries.ts";

export type { paths as CommandPaths } from "./commands.ts";
export type { paths as QueryPaths } from "./queries.ts";

export type Operations = CommandOperations & QueryOperations;
export type OperationName = keyof Operations;

/** A problem document (RFC 9457), the body of every answer that is no success. */
export type Problem = CommandComponents["schemas"]["Problem"];

/** The schemas of the command API, such as `Schemas["NewTransfer"]`. */
export type Schemas = CommandComponents["schemas"];

/** The schemas of the query API. */
export type QuerySchemas = QueryComponents["schemas"];

type JsonOf<T> = T extends { content: { "application/json": infer Body } } ? Body : never;

/** The JSON body of a request, or `never` if the operation takes none. */
export type RequestBody<Name extends OperationName> = Operations[Name] extends { requestBody?: infer Request }
  ? JsonOf<NonNullable<Request>>
  : never;

type Succeeded = 200 | 201 | 202;

/** The JSON body of a successful answer. */
export type Answer<Name extends OperationName> = Operations[Name] extends { responses: infer Responses }
  ? JsonOf<Responses[keyof Responses & Succeeded]>
  : never;
