// Forwards packets of sessions within the kernel. Finds the session by the packet's source, counts packets and loss,
// and sends the packet from the session's own port to the first of its two nodes that is up. Runs at tc ingress and
// sends out of the same device.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

// Ports: clients send to LISTEN, packets to DROP are dropped, and node n listens at NODE + n.
#define LISTEN 5004
#define DROP 5003
#define NODE 7000
#define NODES 6

struct flow {
  __u32 address;
  __u16 port;
  __u16 zero;
};

struct session {
  __u64 packets;
  __u64 bytes;
  __u64 lost;
  __u64 heard;
  __u32 hops[2];
  __u16 port;
  __u16 highest;
};

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 131072);
  __type(key, struct flow);
  __type(value, struct session);
} sessions SEC(".maps");

// State of each node: 0 up, 1 down. Setting one cell moves all sessions of that node to their second hop.
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, NODES);
  __type(key, __u32);
  __type(value, __u32);
} board SEC(".maps");

static __always_inline int is_up(__u32 node) {
  __u32 *cell = bpf_map_lookup_elem(&board, &node);
  return cell && *cell == 0;
}

SEC("tc")
int forward(struct __sk_buff *skb) {
  void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
  struct ethhdr *eth = data;
  struct iphdr *ip = data + sizeof *eth;
  struct udphdr *udp = (void *)ip + sizeof *ip;
  __u8 *rtp = (void *)udp + sizeof *udp;
  if ((void *)(rtp + 12) > end || eth->h_proto != bpf_htons(ETH_P_IP) || ip->protocol != IPPROTO_UDP ||
      ip->ihl != 5 || rtp[0] >> 6 != 2)
    return TC_ACT_OK;
  if (udp->dest == bpf_htons(DROP))
    return TC_ACT_SHOT;
  if (udp->dest != bpf_htons(LISTEN))
    return TC_ACT_OK;
  struct flow flow = {.address = ip->saddr, .port = udp->source};
  struct session *session = bpf_map_lookup_elem(&sessions, &flow);
  if (!session) {
    // A gateway would add the session. Here each new source becomes a session, so that look-ups run on a full table.
    __u16 port = bpf_ntohs(udp->source);
    struct session fresh = {.hops = {port % NODES, (port + 1) % NODES}, .port = bpf_htons(port + 20000)};
    bpf_map_update_elem(&sessions, &flow, &fresh, BPF_ANY);
    return TC_ACT_SHOT;
  }
  __u32 hop = is_up(session->hops[0]) ? session->hops[0] : session->hops[1];
  __u16 sequence = rtp[2] << 8 | rtp[3];
  __s16 ahead = sequence - session->highest;
  if (ahead > 0) {
    session->lost += ahead - 1;
    session->highest = sequence;
  }
  session->packets += 1;
  session->bytes += bpf_ntohs(udp->len);
  session->heard = bpf_ktime_get_ns();
  __u32 source = ip->saddr;
  ip->saddr = ip->daddr;
  ip->daddr = source;
  udp->source = session->port;
  udp->dest = bpf_htons(NODE + hop);
  // Swapping the addresses keeps the checksums valid; the new ports do not, and UDP over IPv4 may omit its checksum.
  udp->check = 0;
  __u8 mac[ETH_ALEN];
  __builtin_memcpy(mac, eth->h_source, ETH_ALEN);
  __builtin_memcpy(eth->h_source, eth->h_dest, ETH_ALEN);
  __builtin_memcpy(eth->h_dest, mac, ETH_ALEN);
  return bpf_redirect(skb->ifindex, 0);
}

char terms[] SEC("license") = "GPL";
