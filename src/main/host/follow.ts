/**
 * Keeps the engine up to date with the host's network and resolvers. The front end says what else a change
 * means. Call followHost() before the sandbox is closed: it opens the directories of the files that it reads
 * later.
 */
import type { RouteSocket } from '../../sys/netlink.ts';
import type { LinkInfo } from '../../sys/netlink-messages.ts';
import type { EngineHandle } from '../../workers/engine.ts';
import { type HostWatch, InterfacePresence } from './host-watch.ts';
import type { Log } from './log.ts';
import { RESOLV_CONF } from './resolv-conf.ts';
import { followResolvConf } from './resolver-watch.ts';
import { ResolverZones } from './resolver-zones.ts';

/** What a front end follows. */
export interface Following {
  /** Resolvers as resolv.conf or the command line has them. */
  readonly nameservers: readonly string[];
  /** What of them the engine was started with: zones by index. */
  readonly resolvers: readonly string[];
  /** No option names resolvers: those of resolv.conf are asked, now and after it changes. */
  readonly followsFile: boolean;
  /** What is asked when resolv.conf names these; absent: these. */
  resolversOf?(nameservers: readonly string[]): readonly string[];
  /** Interfaces that connections are bound to. */
  readonly boundInterfaces: readonly (string | undefined)[];
  /**
   * The host's network has changed: tell the engine, and do what else is to be done.
   * @throws SysError  which is logged
   */
  hostChanged(host: RouteSocket, links: LinkInfo[]): void;
  /** hostChanged() may configure the guest's interface, which takes CAP_NET_ADMIN. */
  readonly configuresNetwork?: boolean;
}

export interface Followed {
  /** Descriptors of directories in which it must be possible to open files. */
  readonly readable: readonly number[];
  /** Follow no longer. */
  stop(): void;
}

export function followHost(watch: HostWatch, engine: EngineHandle, following: Following, log: Log): Followed {
  const { nameservers, resolvers, followsFile, boundInterfaces } = following;
  const zones = new ResolverZones(
    nameservers,
    resolvers,
    () => watch.host.links(),
    (list) => engine.setResolvers(list),
  );
  const readable: number[] = [];
  const use = (list: readonly string[]): void => zones.use(following.resolversOf?.(list) ?? list);
  const unfollow = followsFile ? followResolvConf(use, RESOLV_CONF, readable) : () => {};
  const presence = new InterfacePresence(boundInterfaces, log);
  const onChange = (): void => {
    const links = watch.host.links();
    presence.look(links);
    zones.look(links);
    following.hostChanged(watch.host, links);
  };
  watch.start(engine, onChange, log);
  return {
    readable,
    stop: () => {
      watch.stop();
      unfollow();
    },
  };
}
