/**
 * Keeps the engine up to date with the host's network and resolvers. A front end adds its own reaction to a
 * change (`hostChanged`). Call followHost() before the process enters the sandbox: it opens the directories
 * that contain the files it reads later.
 */
import type { RouteSocket } from '../../sys/netlink.ts';
import type { LinkInfo } from '../../sys/netlink-messages.ts';
import type { EngineHandle } from '../../workers/engine.ts';
import type { FileWatch } from './file-watch.ts';
import { type HostWatch, InterfacePresence } from './host-watch.ts';
import type { Log } from './log.ts';
import type { Nat64 } from './nat64.ts';
import { RESOLV_CONF } from './resolv-conf.ts';
import { followResolvConf } from './resolver-watch.ts';
import { ResolverZones } from './resolver-zones.ts';

/** What a front end follows, and how it reacts. */
export interface Following {
  /** Resolvers as resolv.conf or the command line names them. */
  readonly nameservers: readonly string[];
  /** The resolvers that the engine was started with: zones are interface indexes here. */
  readonly resolvers: readonly string[];
  /** No option names resolvers: the engine asks those of resolv.conf, and follows changes of that file. */
  readonly followsFile: boolean;
  /** Resolvers to ask when resolv.conf names `nameservers`. Absent: the same ones. */
  resolversOf?(nameservers: readonly string[]): readonly string[];
  /** Interfaces that connections are bound to; undefined entries are ignored. */
  readonly boundInterfaces: readonly (string | undefined)[];
  /**
   * The host's network has changed: inform the engine and do whatever else the front end needs.
   * @throws SysError, which the caller logs
   */
  hostChanged(host: RouteSocket, links: LinkInfo[]): void;
  /** hostChanged() may configure the guest's interface, which requires CAP_NET_ADMIN. */
  readonly configuresNetwork?: boolean;
}

/** A running followHost(). */
export interface Followed {
  /** Descriptors of directories in which the sandbox must allow files to be opened. */
  readonly readable: readonly number[];
  /** Stop following resolv.conf and the NAT64 prefix. The watch is its owner's to stop. */
  stop(): void;
}

/**
 * Start to follow the host's network, and resolv.conf if `following.followsFile` is set.
 * @param watch      its sockets must be in the host's network namespace
 * @param files      watches resolv.conf
 * @param engine     receives new resolvers; a packet thread waits for the netlink socket of `watch`
 * @param following  what to follow
 * @param log        receives interfaces that disappear or come back, and errors
 * @param nat64      follows the NAT64 prefix; undefined: it does not matter
 * @returns directories for the sandbox, and a function that stops
 */
export function followHost(
  watch: HostWatch,
  files: FileWatch,
  engine: EngineHandle,
  following: Following,
  log: Log,
  nat64?: Nat64,
): Followed {
  const { nameservers, resolvers, followsFile, boundInterfaces } = following;
  const zones = new ResolverZones(
    nameservers,
    resolvers,
    () => watch.host.links(),
    (list) => {
      engine.setResolvers(list);
      nat64?.setResolvers(list);
    },
  );
  const readable: number[] = [];
  const setNameservers = (list: readonly string[]): void =>
    zones.setNameservers(following.resolversOf?.(list) ?? list);
  const stopFollowingFile = followsFile
    ? followResolvConf(files, nameservers, setNameservers, RESOLV_CONF, readable)
    : () => {};
  const presence = new InterfacePresence(boundInterfaces, log);
  const onChange = (): void => {
    const links = watch.host.links();
    presence.setLinks(links);
    zones.setLinks(links);
    following.hostChanged(watch.host, links);
    nat64?.networkChanged();
  };
  watch.start(engine, onChange, log);
  nat64?.begin();
  const stop = (): void => {
    stopFollowingFile();
    nat64?.stop();
  };
  return { readable, stop };
}
