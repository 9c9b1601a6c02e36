use super::*;

fn read(text: &str) -> Result<ManagerConfig, ConfigError> {
    ManagerConfig::parse(&Source::of("manager.toml", text))
}

fn refused(rest: &str) -> String {
    let error = read(&format!("[chain]\nendpoint = \"http://127.0.0.1:1234\"\n{rest}")).unwrap_err();
    format!("{error}\nhint: {}", error.hint().unwrap_or("-"))
}

#[test]
fn what_is_written_is_read_back() {
    let mut config = ManagerConfig::new("ws://127.0.0.1:1234/rpc/v1".parse().unwrap());
    assert_eq!(read(&config.to_toml()).unwrap(), config);
    insta::assert_snapshot!(config.to_toml());

    config.chain.token_file = Some("/odd \"path\"/\\token\n".into());
    config.senders.post = Some("f3abc".parse::<damocles_core::Address>().unwrap().into());
    config.senders.commit = read("[chain]\nendpoint = \"http://h\"\n[senders]\ncommit = [\"f01000\", \"f01001\"]\n")
        .unwrap()
        .senders
        .commit;
    config.miners.push(MinerSection { max_sectors: Some(2), ..MinerSection::new(ActorId(1000)) });
    config.persist_stores.push(StoreSection { name: "s".into(), path: "/s".into(), read_only: true });
    config.pieces.dirs = vec!["/pieces".into(), "/odd \"path\"".into()];
    config.fees.post.max_fee = damocles_core::TokenAmount::from_fil(3);
    config.proving.enabled = false;
    config.proving.partitions_per_proof = 1;
    assert_eq!(read(&config.to_toml()).unwrap(), config);
}

#[test]
fn a_further_miner_takes_nothing_from_the_file() {
    let old = "# mine\n[chain]\nendpoint = \"http://h\"\ntoken = \"hunter2\" # secret\n\n[[miners]]\nactor = 1000\n\
               lifetime_days = 300\n[processors.limitation.timeout]\nwindow_post = \"1h\"\n\
               [processors.ext_locks]\ngpu = 1\n[[processors.window_post]]\nlocks = [\"gpu\"]";
    let source = Source::of("manager.toml", old);
    let mut miner = MinerSection { max_sectors: Some(3), ..MinerSection::new(ActorId(1001)) };
    let error = ManagerConfig::with_miner(&source, &miner).unwrap_err();
    assert!(error.to_string().contains("lifetime_days"), "{error}");
    miner.lifetime_days = 300;
    let new = ManagerConfig::with_miner(&source, &miner).unwrap();
    assert!(new.starts_with(old));
    let (before, mut after) = (read(old).unwrap(), read(&new).unwrap());
    assert_eq!(after.miners.pop().as_ref(), Some(&miner));
    assert_eq!(before, after);
    assert!(ManagerConfig::with_miner(&Source::of("manager.toml", new), &miner).is_err(), "not twice");
    let inline = Source::of("manager.toml", "miners = []\n[chain]\nendpoint = \"http://h\"\n");
    assert!(ManagerConfig::with_miner(&inline, &miner).is_err(), "the file stays one that can be read");
}

#[test]
fn what_would_let_no_proof_be_made_is_refused() {
    for (line, refused) in [
        ("challenge_confidence = 0", false),
        ("challenge_confidence = 40", false),
        ("challenge_confidence = 41", true),
        ("challenge_confidence = 79", true),
        ("partitions_per_proof = 0", true),
        ("partitions_per_proof = 1", false),
        ("partitions_per_proof = 3", false),
        ("partitions_per_proof = 4", true),
    ] {
        let read = read(&format!("[chain]\nendpoint = \"http://h\"\n[proving]\n{line}\n"));
        assert_eq!(read.is_err(), refused, "{line}");
        if let Err(error) = read {
            assert!(error.to_string().contains(line.split(' ').next().unwrap()), "{error}");
            assert!(error.hint().is_some_and(|hint| hint.contains("write")), "{error}");
        }
    }
}

fn tokens_of(config: &ManagerConfig) -> Vec<(Endpoint, Option<Secret>)> {
    let read = |file: &std::path::Path| std::fs::read_to_string(file).map(|text| Secret::new(text.trim()));
    config.chain.nodes(read).unwrap()
}

#[test]
fn the_token_of_an_endpoint_is_used_and_never_written() {
    let chain = "[chain]\nendpoint = \"hunter2:/ip4/127.0.0.1/tcp/1234/http\"\n";
    let config = read(chain).unwrap();
    assert_eq!(tokens_of(&config), [(config.chain.endpoint.clone(), Some(Secret::new("hunter2")))]);
    assert!(!format!("{config:?} {}", config.to_toml()).contains("hunter2"));
    let twice = read(&format!("{chain}token = \"x\"\n")).unwrap_err();
    assert!(!twice.to_string().contains("hunter2"), "{twice}");
    let bad = read("[chain]\nendpoint = \"hunter2:/ip4/nowhere\"\n").unwrap_err();
    assert!(!bad.to_string().contains("hunter2"), "{bad}");
}

#[test]
fn times_of_tasks_can_be_set() {
    let file = "[chain]\nendpoint = \"http://h\"\n[processors.limitation.timeout]\nwindow_post = \"1h\"\n";
    let limits = read(file).unwrap().processors.limitation;
    assert_eq!(limits.timeout_of(ProcessorKind::WindowPost).as_secs(), 3600);
    assert_eq!(limits.timeout_of(ProcessorKind::WdpostRead).as_secs(), 900);
}

#[test]
fn mistakes_are_errors_with_a_place() {
    insta::assert_snapshot!(refused("[listen]\naddress = \"0.0.0.0:1789\"\n"), @r"
    manager.toml:4:1: `listen.address`: `0.0.0.0:1789` is not loopback
    hint: listen on 127.0.0.1 and reach it from other machines through an SSH tunnel: callers have no roles yet
    ");
    insta::assert_snapshot!(refused("[listen]\nadress = \"127.0.0.1:1789\"\n"), @r"
    manager.toml:4:1: unknown key `listen.adress`
    hint: did you mean `address`?
    ");
    insta::assert_snapshot!(refused("[listen]\naddress = \"localhost\"\n"), @r"
    manager.toml:4:11: `listen.address`: invalid socket address syntax
    hint: -
    ");
    insta::assert_snapshot!(refused("[[miners]]\nactor = 1\n[[miners]]\nactor = 1\n"), @r"
    manager.toml:6:1: `miners[1].actor`: 1 is there twice
    hint: -
    ");
    insta::assert_snapshot!(refused("[[miners]]\nactor = \"f01000\"\n"), @r#"
    manager.toml:4:9: `miners[0].actor`: invalid type: string "f01000", expected u64
    hint: -
    "#);
    insta::assert_snapshot!(refused("[senders]\npost = \"me\"\n"), @r"
    manager.toml:4:8: `senders.post`: `me` is not a valid Address
    hint: -
    ");
    insta::assert_snapshot!(refused("[[processors.pc1]]\nconcurrent = 1\n"), @r"
    manager.toml:3:1: `processors.pc1[0]`: this program runs no such processor
    hint: known here: wdpost_read, window_post
    ");
    let days = "[[miners]]\nactor = 1\n[[miners]]\nactor = 2\nlifetime_days = 400\n";
    let said = refused(days);
    assert!(
        said.contains("manager.toml:7:1: `miners[1].lifetime_days`: differs") && said.contains("hint: write the same"),
        "{said}"
    );
    let said = refused("[[piece_stores]]\nname = \"p\"\npath = \"/p\"\n");
    assert!(
        said.contains("key `piece_stores") && said.contains("hint: remove it: `damocles-manager piece add`"),
        "{said}"
    );
    let said = refused("[processors.limitation.timeout]\nwindow_post = \"0s\"\n");
    assert!(said.contains("`processors.limitation.timeout.window_post`: no time at all"), "{said}");
    let said = refused("[processors.limitation.timeout]\npc1 = \"1h\"\n");
    assert!(said.contains("`processors.limitation.timeout.pc1`: this program runs no such"), "{said}");
    let said = refused("[processors.limitation.timeout]\nwindow_post = 5\n");
    assert!(said.contains("`processors.limitation.timeout.window_post`: invalid type"), "{said}");
    insta::assert_snapshot!(refused("[[persist_stores]]\nname = \"\"\npath = \"/x\"\n"), @r"
    manager.toml:4:1: `persist_stores[0].name`: is empty
    hint: -
    ");
    insta::assert_snapshot!(read("[listen]\n").unwrap_err(), @"manager.toml:1:1: missing key `chain`");
}

#[test]
fn several_nodes_are_a_list_with_a_token_each() {
    let read_chain = |lines: &str| read(&format!("[chain]\n{lines}\n"));
    let two = "endpoints = [\"hunter2:/ip4/127.0.0.1/tcp/1234/http\", \"http://b:1234\"]";
    let config = read_chain(&format!("{two}\nnetwork = \"calibration\"")).unwrap();
    let tokens: Vec<_> = tokens_of(&config).into_iter().map(|(_, token)| token).collect();
    assert_eq!(tokens, [Some(Secret::new("hunter2")), None]);
    assert_eq!(config.chain.network, Some(damocles_core::Network::Calibration));
    assert!(!format!("{config:?} {}", config.to_toml()).contains("hunter2"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "hunter3\n").unwrap();
    let files = format!("endpoints = [\"http://a\", \"http://b\"]\ntoken_files = [\"\", \"{}\"]", file.display());
    let apart = read_chain(&files).unwrap();
    let tokens: Vec<_> = tokens_of(&apart).into_iter().map(|(_, token)| token).collect();
    assert_eq!(tokens, [None, Some(Secret::new("hunter3"))]);
    assert_eq!(read(&apart.to_toml()).unwrap(), apart);
    let plain = read_chain("endpoints = [\"http://a\", \"http://b\"]").unwrap();
    assert_eq!(read(&plain.to_toml()).unwrap(), plain);
    for (lines, said) in [
        ("endpoint = \"http://a\"\nendpoints = [\"http://b\"]", "keep one of the two"),
        ("endpoints = []", "neither `endpoint` nor `endpoints`"),
        ("endpoints = [\"http://a\", \"http://a\"]", "`chain.endpoints[1]`: http://a:80 is there twice"),
        ("endpoints = [\"http://a\", \"http://b\"]\ntoken_file = \"/t\"", "there is one token"),
        ("endpoints = [\"http://a\", \"http://b\"]\ntoken_files = [\"/t\"]", "are 1 for 2 nodes"),
        ("endpoint = \"http://a\"\ntoken = \"x\"\ntoken_files = [\"/t\"]", "a token of the only node too"),
        ("endpoints = [\"http://a\", \"x:http://b\"]\ntoken_files = [\"\", \"/t\"]", "`chain.token_files[1]`"),
        ("endpoints = [\"http://a\", \"nowhere\"]", "`chain.endpoints`: `<address>` is not a URL"),
        ("endpoints = \"http://a\"", "`chain.endpoints`: invalid type"),
        ("endponts = [\"http://a\"]", "unknown key `chain.endponts`"),
        ("endpoint = \"http://a\"\nnetwork = \"a b\"", "`chain.network`"),
    ] {
        let error = read_chain(lines).unwrap_err().to_string();
        assert!(error.contains(said), "{lines}: {error}");
    }
}

#[test]
fn a_wallet_is_one_of_four_kinds() {
    for (lines, kind) in [
        ("", WalletKind::Keystore),
        ("[wallet]\nkind = \"keystore\"\n", WalletKind::Keystore),
        ("[wallet]\nkind = \"file\"\npath = \"/w\"\npassword_file = \"/p\"\n", WalletKind::File),
        ("[wallet]\nkind = \"file\"\npassword_env = \"P\"\n", WalletKind::File),
        ("[wallet]\nkind = \"node\"\n", WalletKind::Node),
        ("[wallet]\nkind = \"remote\"\nendpoint = \"http://w:5678\"\ntoken_file = \"/t\"\n", WalletKind::Remote),
    ] {
        let config = read(&format!("[chain]\nendpoint = \"http://h\"\n{lines}")).unwrap();
        assert_eq!(config.wallet.kind, kind);
        assert_eq!(read(&config.to_toml()).unwrap(), config);
    }
    let mistakes = [
        "kind = \"fil\"",
        "kind = \"node\"\npath = \"/w\"",
        "kind = \"file\"\ntoken_file = \"/w\"",
        "kind = \"remote\"",
        "kind = \"file\"\npasword_file = \"/w\"",
        "path = \"/w\"",
        "kind = \"file\"\npassword_file = \"/p\"\npassword_env = \"P\"",
    ];
    let said = mistakes.map(|lines| refused(&format!("[wallet]\n{lines}\n")));
    insta::assert_snapshot!("wallet_mistakes", said.join("\n"));
    let twice = "[wallet]\nkind = \"remote\"\nendpoint = \"hunter2:http://w\"\ntoken_file = \"/t\"\n";
    let said = refused(twice);
    assert!(said.contains("keep one of the two") && !said.contains("hunter2"), "{said}");
}

#[test]
fn a_cluster_has_sections_that_fit_together() {
    let of = |chain: &str, rest: &str| read(&format!("[chain]\nkind = \"venus\"\n{chain}\n[venus]\n{rest}"));
    let node = "endpoint = \"http://h\"";
    let senders = "[senders]\ndefault = \"f01000\"\n";
    let plain = of(node, &format!("messager = \"http://m:39812\"\ntoken_file = \"token\"\n{senders}")).unwrap();
    assert_eq!(plain.chain.kind, ChainKind::Venus);
    assert_eq!(read(&plain.to_toml()).unwrap(), plain);
    let serving = "messager = \"http://m\"\ngateway = \"/ip4/127.0.0.1/tcp/45132/ws\"\nserve_wallet = true\n";
    let wallet = "[wallet]\nkind = \"file\"\n";
    let served = of(node, &format!("{serving}accounts = [\"miners\"]\n{senders}{wallet}")).unwrap();
    assert_eq!(read(&served.to_toml()).unwrap(), served);
    let two = "endpoints = [\"http://a\", \"http://b\"]";
    for (chain, rest, what, hint) in [
        (node, senders.to_owned(), "missing key `messager`", None),
        (node, "messager = \"http://m\"\n".to_owned(), "`senders.default`: is missing", Some("bound to")),
        (node, format!("mesager = \"http://m\"\n{senders}"), "unknown key `venus.mesager`", Some("`messager`")),
        (node, format!("messager = \"nowhere\"\n{senders}"), "`venus.messager`: ", None),
        (node, format!("messager = \"http://m\"\n{senders}{wallet}"), "the messager signs", Some("serve_wallet")),
        (node, format!("messager = \"http://m\"\naccounts = [\"a\"]\n{senders}"), "`venus.accounts`", Some("remove")),
        (node, format!("messager = \"http://m\"\nserve_wallet = true\n{senders}"), "no gateway", Some("gateway = ")),
        (node, format!("{serving}{senders}"), "no account is named", Some("accounts = ")),
        (
            node,
            format!("{serving}accounts = [\"a\"]\n{senders}[wallet]\nkind = \"node\"\n"),
            "`wallet.kind`",
            Some("file"),
        ),
        (
            node,
            format!("messager = \"hunter2:http://m\"\ntoken_file = \"t\"\n{senders}"),
            "`venus.token_file`",
            Some("one"),
        ),
        (two, format!("messager = \"http://m\"\n{senders}"), "`chain.endpoints`: are several", Some("the node")),
    ] {
        let error = of(chain, &rest).unwrap_err();
        let said = error.to_string();
        assert!(said.contains(what) && !said.contains("hunter2"), "{rest}: {said}");
        assert!(hint.is_none_or(|hint| error.hint().unwrap_or_default().contains(hint)), "{rest}: {error:?}");
    }
    let alone = read("[chain]\nkind = \"venus\"\nendpoint = \"http://h\"\n").unwrap_err().to_string();
    assert!(alone.contains("`chain.kind`: no messager is named"), "{alone}");
    let lotus = refused("[venus]\nmessager = \"http://m\"\n");
    assert!(lotus.contains("means nothing to a chain of kind `lotus`"), "{lotus}");
    assert!(refused("[wallet]\nkind = \"venus\"\n").contains("unknown name `venus`"));
}

#[test]
fn a_role_of_senders_is_an_address_or_a_list_without_doubles() {
    let address = |text: &str| text.parse::<damocles_core::Address>().unwrap();
    let senders = |section: &str| {
        let file = format!("[chain]\nendpoint = \"http://h\"\n[senders]\n{section}\n");
        read(&file).unwrap().senders.senders(Some(address("f01"))).unwrap()
    };
    let all = senders("default = \"f01000\"\npost = [\"f01001\", \"f01002\"]\ncommit = [\"f01003\"]");
    assert_eq!(all.default.all(), [address("f01000")]);
    assert_eq!(all.post.unwrap().all(), [address("f01001"), address("f01002")]);
    assert_eq!(all.commit.unwrap().all(), [address("f01003")]);
    assert_eq!(all.create_miner, None);
    assert_eq!(senders("").default.all(), [address("f01")]);
    for (section, said, hint) in [
        ("commit = [\"f01000\", \"f01001\", \"t01000\"]", "`senders.commit[2]`: is there twice", "once"),
        ("default = []", "`senders.default`: names nobody", "name an address"),
        ("post = [\"f01000\", \"me\"]", "`me` is not a valid Address", "-"),
        ("post = 1000", "expected an address or a list of addresses", "-"),
        ("post = { a = \"f01000\" }", "expected an address or a list of addresses", "-"),
        ("comit = \"f01000\"", "unknown key `senders.comit`", "did you mean `commit`?"),
    ] {
        let text = refused(&format!("[senders]\n{section}\n"));
        let (error, remedy) = text.split_once("\nhint: ").unwrap();
        assert!(error.contains(said) && remedy.contains(hint), "{section}: {text}");
        assert!(error.starts_with("manager.toml:4:"), "{text}");
    }
}
