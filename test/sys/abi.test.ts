// @vitest: beside
/** Every constant and structure offset against the C headers of this machine. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import * as cmsg from '../../src/sys/cmsg.ts';
import * as constants from '../../src/sys/constants.ts';
import * as epoll from '../../src/sys/epoll.ts';
import * as inotify from '../../src/sys/inotify.ts';
import * as multicast from '../../src/sys/multicast.ts';
import { SOCKET_ID_BYTES } from '../../src/sys/sock-diag.ts';
import * as socket from '../../src/sys/socket.ts';
import { syscallNames, syscallNumber } from '../../src/sys/syscall-numbers.ts';
import { VNET_HDR_BYTES } from '../../src/sys/tap.ts';
import { describeNeeding, requireGcc } from '../support/require.ts';

/** Headers for names with one of the prefixes; the first match is used. */
const groups: { headers: string[]; prefixes: string[] }[] = [
  { headers: ['errno.h'], prefixes: ['Errno.'] },
  {
    headers: ['fcntl.h', 'sys/eventfd.h', 'sys/epoll.h', 'sys/mman.h'],
    prefixes: ['O_', 'F_', 'FD_', 'AT_', 'SPLICE_', 'MFD_', 'EFD_', 'EPOLL'],
  },
  {
    headers: ['sys/ioctl.h', 'linux/sockios.h', 'linux/nsfs.h'],
    prefixes: ['FIO', 'TIOC', 'SIOC', 'NS_GET_'],
  },
  { headers: ['linux/udp.h'], prefixes: ['UDP_'] },
  { headers: ['linux/sock_diag.h', 'linux/inet_diag.h'], prefixes: ['SOCK_DIAG_', 'INET_DIAG_'] },
  { headers: ['sys/inotify.h'], prefixes: ['IN_'] },
  { headers: ['sys/socket.h', 'linux/errqueue.h'], prefixes: ['SO_EE_'] },
  {
    headers: ['sys/socket.h', 'netinet/in.h'],
    prefixes: [
      'AF_',
      'SOCK_',
      'SHUT_',
      'MSG_',
      'SCM_',
      'SO_',
      'SOL_SOCKET',
      'SOL_IP',
      'SOL_ICMPV6',
      'SOL_RAW',
      'SOL_NETLINK',
      'IPPROTO_',
      'IP_',
      'IPV6_',
      'MCAST_',
    ],
  },
  { headers: ['linux/icmp.h', 'linux/icmpv6.h'], prefixes: ['ICMP_', 'ICMPV6_'] },
  { headers: ['netinet/tcp.h', 'netinet/udp.h'], prefixes: ['TCP_', 'SOL_TCP', 'SOL_UDP'] },
  { headers: ['sys/ioctl.h', 'linux/if_tun.h', 'linux/if.h'], prefixes: ['TUN', 'IFF_', 'IFNAMSIZ'] },
  {
    headers: [
      'linux/netlink.h',
      'linux/rtnetlink.h',
      'linux/neighbour.h',
      'linux/pkt_sched.h',
      'linux/if_link.h',
      'linux/if_addr.h',
      'linux/veth.h',
      'linux/if.h',
    ],
    prefixes: [
      'NETLINK_',
      'NDA_',
      'NUD_',
      'NLM_',
      'NLMSG',
      'NLA_',
      'RTM_',
      'RTN',
      'RTA',
      'RT_',
      'RTPROT_',
      'RTNH_',
      'RTEXT_',
      'TCA_',
      'TC_H_',
      'IFLA_',
      'IFA_',
      'VETH_',
      'IN6_',
    ],
  },
  {
    headers: [
      'linux/sched.h',
      'linux/prctl.h',
      'linux/capability.h',
      'sys/mount.h',
      'sys/resource.h',
      'sys/syscall.h',
      'signal.h',
    ],
    prefixes: ['CLONE_', 'PR_', 'MS_', 'MNT_', 'UMOUNT_', 'LINUX_', 'CAP_', 'RLIMIT_', 'SIG', 'SYS_'],
  },
];

/** Linux 5.1 gave new calls the same number on all architectures. */
const FIRST_COMMON_NUMBER = 424;

/** Our names of constants that have another name in C. */
const spelling: Record<string, string> = {
  LINUX_CAPABILITY_VERSION_3: '_LINUX_CAPABILITY_VERSION_3',
  // An int in C; attribute types have 16 bits.
  NLA_TYPE_MASK: '(NLA_TYPE_MASK & 0xffff)',
};

const layouts: { headers: string[]; expected: Record<string, number> }[] = [
  {
    headers: ['sys/socket.h', 'netinet/in.h', 'sys/uio.h'],
    expected: {
      'sizeof(struct sockaddr_in)': socket.SOCKADDR_IN_BYTES,
      'sizeof(struct sockaddr_in6)': socket.SOCKADDR_IN6_BYTES,
      'offsetof(struct sockaddr_in, sin_port)': 2,
      'offsetof(struct sockaddr_in, sin_addr)': 4,
      'offsetof(struct sockaddr_in6, sin6_flowinfo)': 4,
      'offsetof(struct sockaddr_in6, sin6_addr)': 8,
      'offsetof(struct sockaddr_in6, sin6_scope_id)': 24,
      'sizeof(struct iovec)': socket.IOVEC_BYTES,
      'offsetof(struct iovec, iov_len)': 8,
      'sizeof(struct msghdr)': socket.MSGHDR_BYTES,
      'offsetof(struct msghdr, msg_namelen)': socket.MSGHDR_NAMELEN_WORD * 4,
      'offsetof(struct msghdr, msg_iov)': socket.MSGHDR_IOV_WORD * 4,
      'offsetof(struct msghdr, msg_iovlen)': socket.MSGHDR_IOVLEN_WORD * 4,
      'offsetof(struct msghdr, msg_control)': socket.MSGHDR_CONTROL_WORD * 4,
      'offsetof(struct msghdr, msg_controllen)': socket.MSGHDR_CONTROLLEN_WORD * 4,
      'offsetof(struct msghdr, msg_flags)': socket.MSGHDR_FLAGS_WORD * 4,
      'sizeof(struct mmsghdr)': socket.MMSGHDR_BYTES,
      'offsetof(struct mmsghdr, msg_len)': socket.MMSGHDR_LEN_WORD * 4,
      'sizeof(struct cmsghdr)': cmsg.CMSG_HEADER_BYTES,
      'offsetof(struct cmsghdr, cmsg_level)': cmsg.CMSG_LEVEL_WORD * 4,
      'offsetof(struct cmsghdr, cmsg_type)': cmsg.CMSG_TYPE_WORD * 4,
      'CMSG_SPACE(2)': cmsg.cmsgSpace(2),
      'CMSG_SPACE(8)': cmsg.cmsgSpace(8),
      'CMSG_SPACE(20)': cmsg.cmsgSpace(20),
      'CMSG_LEN(2)': cmsg.cmsgLen(2),
      'sizeof(struct linger)': socket.LINGER_BYTES,
      'sizeof(struct in_pktinfo)': cmsg.IN_PKTINFO_BYTES,
      'sizeof(struct in6_pktinfo)': cmsg.IN6_PKTINFO_BYTES,
      'sizeof(struct group_req)': multicast.GROUP_REQ_BYTES,
      'offsetof(struct group_req, gr_group)': 8,
      'offsetof(struct group_filter, gf_slist)': multicast.GROUP_FILTER_BYTES,
      'offsetof(struct group_filter, gf_group)': 8,
      'offsetof(struct group_filter, gf_fmode)': 136,
      'offsetof(struct group_filter, gf_numsrc)': 140,
      'sizeof(struct sockaddr_storage)': multicast.SOCKADDR_STORAGE_BYTES,
      'sizeof(struct ip_mreqn)': socket.IP_MREQN_BYTES,
      'sizeof(struct ipv6_mreq)': socket.IPV6_MREQ_BYTES,
      'sizeof(struct { struct timeval t; })': 16,
    },
  },
  {
    headers: ['linux/errqueue.h'],
    expected: {
      'sizeof(struct sock_extended_err)': cmsg.SOCK_EXTENDED_ERR_BYTES,
      'offsetof(struct sock_extended_err, ee_errno)': cmsg.EE_ERRNO_AT,
      'offsetof(struct sock_extended_err, ee_origin)': cmsg.EE_ORIGIN_AT,
      'offsetof(struct sock_extended_err, ee_type)': cmsg.EE_TYPE_AT,
      'offsetof(struct sock_extended_err, ee_code)': cmsg.EE_CODE_AT,
      'offsetof(struct sock_extended_err, ee_info)': cmsg.EE_INFO_AT,
      'offsetof(struct sock_extended_err, ee_data)': cmsg.EE_DATA_AT,
    },
  },
  {
    headers: ['sys/epoll.h'],
    expected: {
      'sizeof(struct epoll_event)': epoll.EPOLL_EVENT_BYTES,
      'offsetof(struct epoll_event, data)': epoll.EPOLL_DATA_AT,
    },
  },
  {
    headers: ['sys/inotify.h'],
    expected: {
      'sizeof(struct inotify_event)': inotify.INOTIFY_EVENT_BYTES,
      'offsetof(struct inotify_event, wd)': inotify.INOTIFY_WD_AT,
      'offsetof(struct inotify_event, mask)': inotify.INOTIFY_MASK_AT,
      'offsetof(struct inotify_event, len)': inotify.INOTIFY_LEN_AT,
      'offsetof(struct inotify_event, name)': inotify.INOTIFY_EVENT_BYTES,
    },
  },
  {
    headers: ['sys/stat.h', 'dirent.h', 'sys/resource.h'],
    expected: {
      // As held-directory.ts and process.ts read them.
      'offsetof(struct stat, st_dev)': 0,
      'offsetof(struct stat, st_ino)': 8,
      'sizeof(struct stat) <= 144': 1,
      'offsetof(struct dirent64, d_reclen)': 16,
      'offsetof(struct dirent64, d_name)': 19,
      'sizeof(struct rlimit)': 16,
    },
  },
  {
    headers: ['linux/if.h', 'linux/virtio_net.h', 'linux/capability.h'],
    expected: {
      'sizeof(struct ifreq)': 40,
      'offsetof(struct ifreq, ifr_flags)': 16,
      'sizeof(struct virtio_net_hdr_mrg_rxbuf)': VNET_HDR_BYTES,
      'sizeof(struct __user_cap_header_struct)': 8,
      'sizeof(struct __user_cap_data_struct)': 12,
    },
  },
  {
    headers: ['netinet/in.h', 'linux/netlink.h', 'linux/inet_diag.h'],
    expected: {
      'sizeof(struct inet_diag_sockid)': SOCKET_ID_BYTES,
      'offsetof(struct inet_diag_sockid, idiag_dport)': 2,
      'offsetof(struct inet_diag_sockid, idiag_src)': 4,
      'offsetof(struct inet_diag_sockid, idiag_dst)': 20,
      'offsetof(struct inet_diag_sockid, idiag_if)': 36,
      'offsetof(struct inet_diag_sockid, idiag_cookie)': 40,
      'sizeof(struct inet_diag_req_v2)': 56,
      'offsetof(struct inet_diag_req_v2, id)': 8,
      'sizeof(struct inet_diag_msg)': 72,
      'offsetof(struct inet_diag_msg, idiag_state)': 1,
      'offsetof(struct inet_diag_msg, idiag_inode)': 68,
    },
  },
  {
    headers: ['linux/tcp.h'],
    expected: {
      'offsetof(struct tcp_info, tcpi_rtt)': 68,
      'offsetof(struct tcp_info, tcpi_snd_cwnd)': 80,
      'offsetof(struct tcp_info, tcpi_total_retrans)': 100,
      'offsetof(struct tcp_info, tcpi_bytes_acked)': 120,
      'offsetof(struct tcp_info, tcpi_bytes_received)': 128,
    },
  },
  {
    headers: ['linux/netlink.h', 'linux/rtnetlink.h'],
    expected: {
      'sizeof(struct sockaddr_nl)': 12,
      'offsetof(struct sockaddr_nl, nl_pid)': 4,
      'sizeof(struct nlmsghdr)': 16,
      'sizeof(struct ifinfomsg)': 16,
      'offsetof(struct ifinfomsg, ifi_index)': 4,
      'offsetof(struct ifinfomsg, ifi_flags)': 8,
      'sizeof(struct ifaddrmsg)': 8,
      'offsetof(struct ifaddrmsg, ifa_index)': 4,
      'sizeof(struct rtmsg)': 12,
      'offsetof(struct rtmsg, rtm_flags)': 8,
      'sizeof(struct rtnexthop)': 8,
      'offsetof(struct rtnexthop, rtnh_ifindex)': 4,
      'offsetof(struct nlmsgerr, msg)': 4,
    },
  },
];

let directory = '';
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'bucatini-abi-'));
});
afterAll(() => {
  rmSync(directory, { recursive: true, force: true });
});

/** Values of C expressions; a name that the headers lack is missing from the result. */
function evaluate(headers: readonly string[], expressions: readonly string[]): Map<string, bigint> {
  const source = join(directory, 'abi.c');
  const program = join(directory, 'abi');
  let asked = [...expressions];
  for (;;) {
    const lines = [
      '#define _GNU_SOURCE',
      '#include <stddef.h>',
      '#include <stdio.h>',
      '#include <sys/time.h>',
      ...headers.map((header) => `#include <${header}>`),
      'int main(void) {',
      ...asked.map((expression) => `  printf("%lld\\n", (long long)(${expression}));`),
      '  return 0;',
      '}',
    ];
    writeFileSync(source, `${lines.join('\n')}\n`);
    const built = spawnSync('gcc', ['-w', '-o', program, source], {
      encoding: 'utf8',
      env: { ...process.env, LC_ALL: 'C' },
    });
    if (built.status === 0) break;
    const unknown = new Set(
      [...built.stderr.matchAll(/error: '(\w+)' undeclared|has no member named '(\w+)'/g)].map(
        (match) => match[1] ?? match[2]!,
      ),
    );
    const left = asked.filter(
      (expression) => ![...unknown].some((name) => new RegExp(`\\b${name}\\b`).test(expression)),
    );
    if (left.length === asked.length) throw new Error(built.stderr);
    asked = left;
  }
  const values = spawnSync(program, { encoding: 'utf8' }).stdout.trim().split('\n');
  return new Map(asked.map((expression, i) => [expression, BigInt(values[i]!)]));
}

/** Names in C, and our values. */
function ours(): Map<string, number> {
  const all = new Map<string, number>();
  for (const [name, value] of Object.entries(constants)) {
    if (typeof value === 'number') all.set(name, value);
  }
  for (const [name, value] of Object.entries(constants.Errno)) all.set(`Errno.${name}`, value);
  return all;
}

describeNeeding('kernel ABI', [requireGcc], () => {
  it('every constant: has a group of headers', () => {
    const homeless = [...ours().keys()].filter(
      (name) => !groups.some((group) => group.prefixes.some((prefix) => name.startsWith(prefix))),
    );
    expect(homeless).toEqual([]);
  });

  it('constants: equal those of the kernel headers', () => {
    const unclaimed = ours();
    const lacking: string[] = [];
    for (const { headers, prefixes } of groups) {
      const mine = [...unclaimed].filter(([name]) => prefixes.some((prefix) => name.startsWith(prefix)));
      for (const [name] of mine) unclaimed.delete(name);
      const inC = (name: string): string => spelling[name] ?? name.replace('Errno.', '');
      const values = evaluate(
        headers,
        mine.map(([name]) => inC(name)),
      );
      for (const [name, value] of mine) {
        const expected = values.get(inC(name));
        if (expected === undefined) lacking.push(name);
        else
          expect({ name, value: BigInt.asUintN(32, BigInt(value)) }).toEqual({
            name,
            value: BigInt.asUintN(32, expected),
          });
      }
    }
    // Headers older than the kernel lack a few; they must not lack many.
    expect(lacking.length, lacking.join(' ')).toBeLessThan(15);
  });

  it('system calls: the numbers of the kernel headers; -1 where the architecture lacks the call', () => {
    const values = evaluate(
      ['asm/unistd.h'],
      syscallNames.map((name) => `__NR_${name}`),
    );
    for (const name of syscallNames) {
      const number = syscallNumber(name);
      const inC = values.get(`__NR_${name}`);
      // From 424 on the numbers are the same everywhere, and the headers may be older than the call.
      if (inC === undefined && number >= FIRST_COMMON_NUMBER) continue;
      expect([name, number]).toEqual([name, inC === undefined ? -1 : Number(inC)]);
    }
  });

  it('structures: the layout of the kernel headers', () => {
    for (const { headers, expected } of layouts) {
      const values = evaluate(headers, Object.keys(expected));
      for (const [expression, value] of Object.entries(expected)) {
        const inC = values.get(expression);
        // tcp_info grows at its end; older headers lack the last fields.
        if (inC === undefined && expression.includes('tcpi_')) continue;
        expect({ expression, value: inC }).toEqual({ expression, value: BigInt(value) });
      }
    }
  });
});
