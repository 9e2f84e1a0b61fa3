use super::layout::PersistedTransport;
use crate::sip::Transport;
use crate::transport::{ListenerId, Source};

#[test]
fn every_way_comes_back_and_those_of_older_journals_are_what_they_were() {
    let all = [
        (Transport::Udp, false),
        (Transport::Tcp, false),
        (Transport::Tls, false),
        (Transport::Ws, false),
        (Transport::Wss, false),
        (Transport::Tls, true),
        (Transport::Wss, true),
    ];
    for (transport, certified) in all {
        let peer = "192.0.2.7:5060".parse().unwrap();
        let source = Source { transport, listener: ListenerId(0), peer, flow: None, certified };
        let way: PersistedTransport =
            postcard::from_bytes(&postcard::to_stdvec(&PersistedTransport::of(&source)).unwrap()).unwrap();
        assert_eq!((way.transport(), way.is_certified()), (transport, certified));
    }
    for (tcp, transport) in [(false, Transport::Udp), (true, Transport::Tcp)] {
        let way: PersistedTransport = postcard::from_bytes(&postcard::to_stdvec(&tcp).unwrap()).unwrap();
        assert_eq!(way.transport(), transport);
    }
}
