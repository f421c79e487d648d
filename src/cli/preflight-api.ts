/** What `preflight` says of the way to the API server. */
import { type ProxyConfig } from '../config/proxy-config.js';
import { checkApiServer } from '../daemon/cluster/api-check.js';
import { errorMessage } from '../values/errors.js';
import { type Check } from './preflight-check.js';

/** `failed` where the API server is away, refuses us, or does not know this Node. */
export async function checkApi(config: ProxyConfig, nodeName: string): Promise<Check> {
  try {
    return { name: 'API server', state: 'ok', detail: await checkApiServer(config, nodeName) };
  } catch (error) {
    return { name: 'API server', state: 'failed', detail: errorMessage(error) };
  }
}
