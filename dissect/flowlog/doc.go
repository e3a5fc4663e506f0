// Package flowlog reads what others have written down of connections, where
// the packets are gone: Zeek's conn.log and the flow events of Suricata become
// attempts of the transport, as far as those logs can tell; rows of our own
// attempts table become the attempts that they were. Flow records without
// outcomes (NetFlow, cloud flow logs) become no attempts: they are counted.
package flowlog
