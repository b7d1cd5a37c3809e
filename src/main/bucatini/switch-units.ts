// bundle: rare
/**
 * What `switch-over --switch-sockets` writes beside the drop-in: the seccomp profile of all containers of the user,
 * and the user units of systemd for `bucatini switch-agent`. A package has the same units (packaging/systemd).
 */
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { PODMAN_PROFILES, switchProfileText } from './switch-profile.ts';

export const AGENT_UNIT = 'bucatini-switch-agent';
const SOCKET_NAME = 'bucatini-switch.sock';

/** A file to write. */
export interface WantedFile {
  readonly path: string;
  readonly text: string;
}

/** Where the files are written, and what they name. */
export interface SwitchedPlaces {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly uid: number;
  /** Directory of the launchers. */
  readonly binDir: string;
  /** Of the profile. */
  readonly profile: string;
  /** Directory of the user's units. */
  readonly units: string;
  /** The profile that containers have without us; undefined: Podman's own. */
  readonly base: string | undefined;
  /** Where Podman's own profile is. Tests set others. */
  readonly podmanProfiles?: readonly string[];
}

/** Path of the agent's socket. */
export function agentSocket({ env, uid }: Pick<SwitchedPlaces, 'env' | 'uid'>): string {
  const runtime = env.XDG_RUNTIME_DIR?.replace(/\/+$/, '');
  return `${runtime?.startsWith('/') ? runtime : `/run/user/${uid}`}/${SOCKET_NAME}`;
}

/**
 * The files.
 * @throws UsageError if there is no profile to begin with
 */
export function switchedFiles(places: SwitchedPlaces): readonly WantedFile[] {
  const { binDir, profile, units, base, podmanProfiles = PODMAN_PROFILES } = places;
  const socket = agentSocket(places);
  const text = switchProfileText(base, socket, podmanProfiles);
  // A package for a distribution has the units in the system's directory.
  const isPackage = existsSync(`${dirname(binDir)}/dist/installed`);
  if (isPackage) return [{ path: profile, text }];
  return [
    { path: profile, text },
    { path: `${units}/${AGENT_UNIT}.service`, text: serviceUnit(`${binDir}/bucatini`) },
    { path: `${units}/${AGENT_UNIT}.socket`, text: socketUnit(unitWord(socket)) },
  ];
}

/** The text of the service, as packaging/systemd has it. @param program  path of bucatini */
export const serviceUnit = (program: string): string => `[Unit]
Description=Outgoing TCP of containers by sockets of the host, by bucatini
Documentation=man:bucatini(1)
Requires=${AGENT_UNIT}.socket
After=${AGENT_UNIT}.socket
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart=${unitWord(program).replaceAll('$', '$$$$')} switch-agent
Restart=always
RestartSec=500ms
# The listeners of running containers are kept while the agent is not there: one for each container and each exec.
# After "systemctl stop", too, with systemd 254 or later; older ones ignore ...Preserve and keep them over restarts only
FileDescriptorStoreMax=4096
FileDescriptorStorePreserve=yes
NoNewPrivileges=yes

[Install]
Also=${AGENT_UNIT}.socket
WantedBy=default.target
`;

/** The text of the socket, as packaging/systemd has it. @param path  in the unit's syntax */
export const socketUnit = (path = `%t/${SOCKET_NAME}`): string => `[Unit]
Description=Socket that OCI runtimes send seccomp listeners to, for bucatini
Documentation=man:bucatini(1)

[Socket]
ListenStream=${path}
SocketMode=0600
RemoveOnStop=yes

[Install]
WantedBy=sockets.target
`;

/** A path in a unit: specifiers escaped, and quoted where there are blanks. systemd.unit(5), systemd.syntax(7) */
function unitWord(path: string): string {
  const escaped = path.replaceAll('%', '%%');
  return /[\s"'\\;]/.test(escaped) ? `"${escaped.replace(/["\\]/g, '\\$&')}"` : escaped;
}
